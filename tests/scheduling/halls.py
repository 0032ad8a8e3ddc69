"""Builders of halls and gangs, and what any hall must show after whatever happened on it."""

import numpy as np

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import UNBOUNDED, Bay, Hall


def bay(node_id: str, devices: int = 8, **rest: object) -> Bay:
    return Bay(node_id=node_id, devices=devices, **rest)  # type: ignore[arg-type]


def hall(*devices: int, **rest: object) -> Hall:
    """Nodes n0, n1, … with so many accelerators each."""
    return Hall([bay(f"n{number}", count, **rest) for number, count in enumerate(devices)])


def gang(
    run_id: str, milli: int = WHOLE, *, number: int | None = None, submit_s: float = 0.0, **shape: object
) -> Gang:
    """A gang of one pod unless `pods` says otherwise; numbered by the digits of its id."""
    ordinal = int("".join(sign for sign in run_id if sign.isdigit()) or 0) if number is None else number
    return Gang(run_id=run_id, number=ordinal, shape=Shape(milli=milli, **shape), submit_s=submit_s)  # type: ignore[arg-type]


def assert_adds_up(one: Hall) -> None:
    """What is free is what is installed less what is held, in every column, and never below nothing."""
    free = np.full(one.free.shape, -1, dtype=np.int64)
    for row, each in enumerate(one.bays):
        free[row, : each.devices] = WHOLE
    columns = {
        name: [getattr(each, name) for each in one.bays]
        for name in ("cpu_milli", "memory_mib", "disk_mib", "watts")
    }
    left = {
        name: [UNBOUNDED if amount is None else amount for amount in amounts]
        for name, amounts in columns.items()
    }
    for held in one.held.values():
        assert len(held.spots) == held.shape.pods
        for spot in held.spots:
            assert len(set(spot.devices)) == held.shape.devices
            free[spot.row, list(spot.devices)] -= held.shape.share
            rack = one.bays[spot.row].rack
            for row, node in enumerate(one.node):
                for name in left:
                    if node == one.node[spot.row] or (name == "watts" and one.bays[row].rack == rack != ""):
                        left[name][row] -= getattr(held.shape, name)
    assert (free >= np.where(np.arange(free.shape[1]) < one.devices[:, np.newaxis], 0, -1)).all()
    assert one.free.tolist() == free.tolist()
    assert one.largest.tolist() == [max(0, *row) if row else 0 for row in free.tolist()]
    assert one.whole.tolist() == (free == WHOLE).sum(axis=1).tolist()
    assert one.spare.tolist() == np.maximum(free, 0).sum(axis=1).tolist()
    for name, amounts in left.items():
        assert getattr(one, name).tolist() == amounts
        assert min(amounts) >= 0
