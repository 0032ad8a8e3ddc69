"""A run's prepared data: one folder per recipe and config, filled once, read by every worker.

Invariant: the folder appears by one rename when it is whole; whoever finds it may use it without asking.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from baseai.workloads.training.assignment import Assignment
from baseai.workloads.training.recipe import configured, recipe_named

FOLDER = "prepared"


def prepared(assignment: Assignment) -> Path:
    """The folder of the assignment's data, made now if nobody has; others wait. Raises RecipeRefused."""
    told = json.dumps([assignment.recipe, dict(assignment.config), sys.version_info[:3]], sort_keys=True)
    place = assignment.checkpoint_folder / FOLDER
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
                config = configured(assignment.recipe, assignment.config)
                recipe_named(assignment.recipe).prepare(config, half)
                os.rename(half, folder)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    return folder
