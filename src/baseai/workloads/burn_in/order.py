"""An order is what the node's agent asks of the burn-in's launcher: burn_in.json of one attempt, read once.

Invariant: an order that could be read can be started; what is wrong with it is said by key.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from baseai.ground.fault import Refused
from baseai.workloads.burn_in.profile import PROFILES, Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One attempt of one burn-in."""

    run_id: str
    attempt_no: int
    model: str
    profile: str
    device: Device
    accelerator_ids: tuple[str, ...]  # by rank
    cores: tuple[tuple[int, ...], ...]  # by rank; empty where accelerators are no cores
    attempt_folder: Path


def read(path: Path) -> Order:
    """The order in the file. Raises Refused where it is missing, is no JSON object, or lacks a key."""
    try:
        told = json.loads(path.read_bytes())
        order = Order(
            run_id=str(told["run_id"]),
            attempt_no=int(told["attempt_no"]),
            model=str(told["model"]),
            profile=str(told["profile"]),
            device="cpu" if told["device"] == "cpu" else "cuda",
            accelerator_ids=tuple(told["accelerator_ids"]),
            cores=tuple(tuple(own) for own in told["cores"]),
            attempt_folder=Path(told["attempt_folder"]),
        )
    except OSError as wrong:
        raise Refused(f"cannot read {path}: {wrong.strerror}") from wrong
    except KeyError as missing:
        raise Refused(f"{path.name} lacks {missing.args[0]}") from missing
    except (ValueError, TypeError) as wrong:
        raise Refused(f"{path.name}: {wrong}") from wrong
    if order.profile not in PROFILES:
        raise Refused(f"there is no profile {order.profile}; the profiles are {', '.join(PROFILES)}")
    if not order.accelerator_ids:
        raise Refused("there is no accelerator to test")
    if order.cores and len(order.cores) != len(order.accelerator_ids):
        raise Refused(f"{len(order.cores)} cores for {len(order.accelerator_ids)} slots")
    return order
