"""A run's prepared data: one folder per recipe and config, filled once, read by every worker.

Invariant: the folder appears by one rename when it is whole; whoever finds it may use it without asking.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from baseai.workloads.training.assignment import Assignment
from baseai.workloads.training.recipe import configured, recipe_named

FOLDER = "prepared"


def prepared(assignment: Assignment) -> Path:
    """The folder of the assignment's data, made now if nobody has; others wait. Raises RecipeRefused."""
    return prepared_of(assignment.recipe, assignment.config, assignment.checkpoint_folder)


def prepared_of(recipe: str, config: Mapping[str, object], checkpoint_folder: Path) -> Path:
    """The same of a run that is known by its recipe and its checkpoints alone."""
    told = json.dumps([recipe, dict(config), sys.version_info[:3]], sort_keys=True)
    place = checkpoint_folder / FOLDER
    folder = place / hashlib.sha256(told.encode()).hexdigest()[:16]
    if folder.exists():
        return folder
    place.mkdir(parents=True, exist_ok=True)
    with (place / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            half = place / f".half-{folder.name}"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            try:
                recipe_named(recipe).prepare(configured(recipe, config), half)
                os.rename(half, folder)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    return folder
