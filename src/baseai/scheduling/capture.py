"""A capture is a hall as bytes: everything installed and everything that stands on it, to be looked at elsewhere.

Invariant: `hall_from(captured(hall))` answers every question as `hall` did. The bytes are those of a NumPy archive
(.npz) without objects in it, so that reading one runs nobody's code.
"""

import io
import json
import zipfile
from dataclasses import asdict
from typing import Any

import numpy as np

from baseai.ground.fault import Fault
from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Bay, Hall, Spot

FORM = 1  # rises with every change of what is kept


class NoCapture(Fault):
    """These bytes are no hall."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"this is no captured hall: {self.why}"


def captured(hall: Hall) -> bytes:
    """The hall as bytes; equal halls give equal bytes. O(rows + gangs)."""
    shapes = {
        shape: number for number, shape in enumerate(dict.fromkeys(held.shape for held in hall.held.values()))
    }
    spots = [
        (gang, spot.row, device)
        for gang, held in enumerate(hall.held.values())
        for spot in held.spots
        for device in spot.devices or (-1,)
    ]
    told = {
        "form": FORM,
        "bays": [asdict(bay) for bay in hall.bays],
        "shapes": [asdict(shape) for shape in shapes],
        "runs": [[run_id, shapes[held.shape]] for run_id, held in hall.held.items()],
    }
    kept = io.BytesIO()
    np.savez_compressed(
        kept,
        told=np.frombuffer(json.dumps(told, separators=(",", ":")).encode(), dtype=np.uint8),
        spots=np.array(spots, dtype=np.int64).reshape(-1, 3),
        ready=hall.ready,
    )
    return kept.getvalue()


def hall_from(content: bytes) -> Hall:
    """The hall of these bytes. Raises NoCapture."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            told = json.loads(archive["told"].tobytes())
            spots, ready = archive["spots"].tolist(), archive["ready"].tolist()
        if told["form"] != FORM:
            raise NoCapture(f"its form is {told['form']}, and {FORM} is read here")
        hall = Hall([Bay(**bay) for bay in told["bays"]])
        shapes = [_shape_from(shape) for shape in told["shapes"]]
        at = 0
        for run_id, number in told["runs"]:
            shape, placed = shapes[number], list[Spot]()
            for _ in range(shape.pods):
                devices = tuple(spots[place][2] for place in range(at, at + max(1, shape.devices)))
                placed.append(Spot(spots[at][1], devices if shape.devices else ()))
                at += max(1, shape.devices)
            hall.place(run_id, shape, placed)
        for bay, is_ready in zip(hall.bays, ready, strict=True):
            if not is_ready:
                hall.set_ready(bay.node_id, False)
    except (KeyError, IndexError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as wrong:
        raise NoCapture(f"{type(wrong).__name__}: {wrong}") from wrong
    return hall


def _shape_from(told: dict[str, Any]) -> Shape:
    """JSON knows no tuples."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
    }
    return Shape(**fields)
