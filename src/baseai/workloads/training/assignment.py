"""An assignment is what the node's agent asks of the launcher: train.json of one attempt's folder, read once.

Invariant: an assignment that could be built can be started; what is wrong with it is said by key.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from baseai.ground.clock import instant
from baseai.ground.fault import Refused
from baseai.workloads.training.interval import Rule, rule_of
from baseai.workloads.training.recipe import checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One attempt of one run on one node."""

    run_id: str
    attempt_no: int  # rises with every attempt of the run: the fence
    recipe: str
    config: Mapping[str, Any]  # the recipe's own keys, whole and checked
    nodes: int
    node_rank: int
    workers: int  # per node
    master_addr: str
    master_port: int  # used only with several nodes
    checkpoint_folder: Path  # shared by all nodes, outlives attempts
    output_folder: Path
    attempt_folder: Path  # of this node
    device: str
    parallel: str
    checkpoint_every: Rule
    max_restarts: int
    run_started_at: datetime | None
    grace_s: float = 20.0  # from SIGTERM to SIGKILL of the workers
    collective_timeout_s: float = 300.0  # a hung rank ends the others, never hangs them for ever
    keep: int = 3  # committed checkpoints

    def __post_init__(self) -> None:
        for name, least in (
            ("attempt_no", 0),
            ("nodes", 1),
            ("workers", 1),
            ("max_restarts", 0),
            ("keep", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is less than {least}")
        if not 0 <= self.node_rank < self.nodes:
            raise ValueError(f"node_rank {self.node_rank} is not one of {self.nodes} nodes")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device {self.device!r} is neither cpu nor cuda")
        if self.parallel not in ("ddp", "fsdp2"):
            raise ValueError(f"parallel {self.parallel!r} is neither ddp nor fsdp2")
        if self.config["batch"] < self.nodes * self.workers:
            raise ValueError(
                f"batch {self.config['batch']} is smaller than {self.nodes * self.workers} workers: "
                "each needs a sample of every step"
            )

    @property
    def world(self) -> int:
        """Workers over all nodes."""
        return self.nodes * self.workers


def assignment_of(told: Mapping[str, Any]) -> Assignment:
    """The assignment that train.json's values describe. Raises Refused or RecipeRefused with the sentence."""
    seed = told.get("seed")
    config = dict(told.get("config") or {})
    if seed is not None:
        config.setdefault("seed", seed)
    values = {each.name: told[each.name] for each in fields(Assignment) if each.name in told}
    try:
        values["config"] = checked(str(told["recipe"]), config)
        values["checkpoint_every"] = rule_of(told.get("checkpoint_every", "auto"))
        for name in ("checkpoint_folder", "output_folder", "attempt_folder"):
            values[name] = Path(told[name])
        started = told.get("run_started_at")
        values["run_started_at"] = None if started is None else instant(started)
        return Assignment(**values)
    except KeyError as missing:
        raise Refused(f"train.json lacks {missing.args[0]}") from missing
    except (TypeError, ValueError) as wrong:
        raise Refused(f"train.json: {wrong}") from wrong


def read(path: Path) -> Assignment:
    """The assignment in the file. Raises Refused where the file is missing or is no JSON object."""
    try:
        told = json.loads(path.read_bytes())
    except OSError as wrong:
        raise Refused(f"cannot read {path}: {wrong.strerror}") from wrong
    except ValueError as wrong:
        raise Refused(f"{path} is not JSON: {wrong}") from wrong
    if not isinstance(told, dict):
        raise Refused(f"{path} is not a JSON object")
    return assignment_of(told)
