"""The policies by the names people type.

Invariant: a name here is the name of its file; nothing is imported until it is asked for.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from baseai.ground.fault import Refused
from baseai.scheduling.policy.seam import Packing, Timing

PACKING: Mapping[str, str] = {
    "random": "Random",
    "first_fit": "FirstFit",
    "best_fit": "BestFit",
    "leaf_best_fit": "LeafBestFit",
    "fabric": "Fabric",
    "fgd": "Fgd",
    "lookahead": "Lookahead",
    "blend": "Blend",
}
TIMING: Mapping[str, str] = {
    "fifo": "Fifo",
    "easy": "Easy",
    "sjf": "Sjf",
    "srtf": "Srtf",
    "srsf": "Srsf",
    "pledge": "Pledge",
    "gather": "Gather",
    "thrift": "Thrift",
    "gittins": "Gittins",
    "house": "House",
}
# For demand of one kind alone; of another they say so and start nothing.
NARROW: Mapping[str, str] = {"assign": "Assign"}


def packing_named(name: str) -> type[Packing]:
    """Raises Refused where there is none of that name."""
    return cast("type[Packing]", _named(name, PACKING, "packing"))


def timing_named(name: str) -> type[Timing]:
    """Raises Refused where there is none of that name."""
    return cast("type[Timing]", _named(name, {**TIMING, **NARROW}, "time"))


def _named(name: str, known: Mapping[str, str], mode: str) -> object:
    if name not in known:
        raise Refused(
            f"--policy {name}: no {mode} policy has that name; one of {', '.join(known)}, or FILE.py:Class"
        )
    return getattr(import_module(f"baseai.scheduling.policy.{name}"), known[name])
