"""An export makes of a run's newest checkpoint the folder that its recipe's ecosystem loads, while the run goes on.

`python -m baseai.workloads.training.export export.json`

Invariant: the target appears by one rename when it is whole; the run's own folders are only read, save for the data
that the recipe prepares. Exit codes: 0 exported, 64 there is nothing to export, and standard error says why.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from baseai.ground.fault import Fault, Refused
from baseai.workloads.training import checkpoint
from baseai.workloads.training.checkpoint import Checkpoint
from baseai.workloads.training.data import prepared_of
from baseai.workloads.training.recipe import configured, recipe_named

EXPORTED, NOTHING = 0, 64


def exported(folder: Path, recipe: str, config: Mapping[str, object], target: Path) -> Checkpoint:
    """Write the newest checkpoint of `folder` to `target`; which one that was.

    Raises Refused where there is no checkpoint whose bytes are whole, RecipeRefused.
    """
    found = checkpoint.newest(folder)
    if found is None:
        raise Refused("it has saved no checkpoint yet")
    from baseai.workloads.training.state import restore_weights

    task = recipe_named(recipe).opened(configured(recipe, config), prepared_of(recipe, config, folder))
    model = task.model()
    restore_weights(found.state, model)
    half = target.with_name(f".half-{target.name}-{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    task.export(model, half)
    described = {"recipe": recipe, "config": dict(config), "step": found.step, "digest": found.digest}
    (half / "training.json").write_text(json.dumps(described, indent=1))
    os.rename(half, target)
    return found


def main(arguments: list[str]) -> int:
    """Export what the file named in the arguments asks for; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m baseai.workloads.training.export <export.json>", file=sys.stderr)
        return NOTHING
    told = json.loads(Path(arguments[0]).read_bytes())
    try:
        found = exported(Path(told["folder"]), told["recipe"], told["config"], Path(told["target"]))
    except Fault as fault:
        print(fault, file=sys.stderr)
        return NOTHING
    print(f"exported step {found.step}")
    return EXPORTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
