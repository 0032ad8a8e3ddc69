"""An order is what the node's agent asks of one replica: service.json of one attempt, read once.

Invariant: an order that could be read can be served; what is wrong with it is said by key. Its token does not stay in
the file, which others of the same user might read.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from baseai.ground.fault import Refused
from baseai.workloads.service import Service

FILE = "service.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One attempt of one replica."""

    run_id: str
    run_name: str
    attempt_no: int
    service_id: str | None  # None of a service that runs by itself, without a gateway
    version_no: int
    service: Service
    model_path: str | None  # of `run:NAME`: where the platform found what that run made
    model_run_id: str | None  # that run
    model_checkpoints: (
        Mapping[str, Any] | None
    )  # folder, recipe and config of a run that has not made a model yet
    address: str  # of the node, where gateways reach it
    device: Literal["cpu", "cuda"]
    accelerators: int  # leased, CPU slots among them
    threads: int  # for one computation
    stop_grace_s: float
    attempt_folder: Path  # for progress and what only this attempt needs
    work_folder: Path  # the tenant's files
    python_path: str | None  # the tenant's own PYTHONPATH, for commands
    # What its gateway shows. None where a platform from before there were tokens ordered it: whoever comes is answered.
    token: str | None = field(default=None, repr=False)


def read(path: Path) -> Order:
    """The order in the file. Raises Refused where it is missing, is no JSON object, or lacks a key."""
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        return Order(
            run_id=str(told["run_id"]),
            run_name=str(told["run_name"]),
            attempt_no=int(told["attempt_no"]),
            service_id=told.get("service_id"),
            version_no=int(told.get("version_no") or 1),
            service=Service.from_json(told["service"]),
            model_path=told.get("model_path"),
            model_run_id=told.get("model_run_id"),
            model_checkpoints=told.get("model_checkpoints"),
            address=str(told.get("address") or "127.0.0.1"),
            device="cpu" if told["device"] == "cpu" else "cuda",
            accelerators=max(1, int(told["accelerators"])),
            threads=max(1, int(told["threads"])),
            stop_grace_s=float(told["stop_grace_s"]),
            attempt_folder=Path(told["attempt_folder"]),
            work_folder=Path(told["work_folder"]),
            python_path=told.get("python_path"),
            token=told.get("token"),
        )
    except OSError as wrong:
        raise Refused(f"cannot read {path}: {wrong.strerror}") from wrong
    except KeyError as missing:
        raise Refused(f"{path.name} lacks {missing.args[0]}") from missing
    except (ValueError, TypeError, AttributeError) as wrong:
        raise Refused(f"{path.name}: {wrong}") from wrong


def taken(path: Path) -> Order:
    """The order, whose token is in the file no more. Raises Refused as `read` does."""
    order = read(path)
    if order.token is not None:
        told = json.loads(path.read_bytes()) | {"token": None}
        kept = path.with_name(f"{path.name}.taken")
        with contextlib.suppress(OSError):  # a full disk: it still is its owner's alone
            with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(told, file, indent=1)
            kept.replace(path)
    return order
