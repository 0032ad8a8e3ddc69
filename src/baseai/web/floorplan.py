"""A floorplan is where each accelerator's cell stands on the map of the fleet: by site, then rack, then node.

Invariant: the order is that of (site, rack, node, device), so that equal fleets give equal plans and a cell keeps its
place while nothing is installed or taken away; `version` changes whenever a browser would have to fetch it anew. Pure.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Row = Mapping[str, Any]

FREE = 0  # holder number of an accelerator that nobody holds
HELD = 1  # of one whose holder the visitor may not know, or that came after too many others
HOLDERS_MAX = 4000  # numbered one by one; a map with more colours would tell nobody anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A run that holds accelerators now."""

    run_id: str
    name: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Floorplan:
    """All accelerators in the order of their cells.

    rows: one per cell, with serial, model, node_id, node, site, rack, health, simulated, and who holds it. holder:
    per cell, FREE, HELD, or 2 + its place in `holders`. blocks: (site, name, is a rack, ((node, cells), …)) in order.
    """

    rows: tuple[Row, ...]
    holders: tuple[Holder, ...]
    holder: tuple[int, ...]
    blocks: tuple[tuple[str, str, bool, tuple[tuple[str, int], ...]], ...]
    version: str
    place_of: Mapping[str, int]  # serial → its cell

    @property
    def serials(self) -> tuple[str, ...]:
        return tuple(row["serial"] for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """For a browser: the blocks, and per cell its serial, model and holder."""
        models = sorted({row["model"] for row in self.rows})
        place = {model: number for number, model in enumerate(models)}
        return {
            "version": self.version,
            "blocks": [[site, name, rack, list(nodes)] for site, name, rack, nodes in self.blocks],
            "serials": [row["serial"] for row in self.rows],
            "models": models,
            "model": [place[row["model"]] for row in self.rows],
            "holders": [[each.run_id, each.name, each.tenant] for each in self.holders],
            "holder": list(self.holder),
        }


def floorplan_of(rows: Sequence[Row], *, names_holders: bool) -> Floorplan:
    """The plan of the accelerators in `rows`, which may come in any order.

    names_holders: whether the visitor may know which run holds what; otherwise a cell is held or free.
    """
    ordered = tuple(sorted(rows, key=_place))
    holders, numbers = _holders_of(ordered) if names_holders else ((), {})
    holder = tuple(FREE if row["run_id"] is None else numbers.get(row["run_id"], HELD) for row in ordered)
    blocks = tuple(
        (site, name, is_rack, tuple((node, len(list(cells))) for node, cells in groupby(own, key=_node)))
        for (site, name, is_rack), own in groupby(ordered, key=_block)
    )
    shown = [
        blocks, [(row["serial"], row["model"]) for row in ordered], holder,
        [(each.run_id, each.name, each.tenant) for each in holders],
    ]  # fmt: skip
    version = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:12]
    return Floorplan(
        rows=ordered,
        holders=holders,
        holder=holder,
        blocks=blocks,
        version=version,
        place_of={row["serial"]: place for place, row in enumerate(ordered)},
    )


def _place(row: Row) -> tuple[str, str, str, int, str]:
    return row["site"], row["rack"], row["node"], row["device_index"], row["serial"]


def _node(row: Row) -> str:
    name: str = row["node"]
    return name


def _block(row: Row) -> tuple[str, str, bool]:
    """What stands together: a rack, or a node of which no rack is known."""
    return row["site"], row["rack"] or row["node"], bool(row["rack"])


def _holders_of(rows: Sequence[Row]) -> tuple[tuple[Holder, ...], Mapping[str, int]]:
    found: dict[str, Holder] = {}
    for row in rows:
        if row["run_id"] is not None and row["run_id"] not in found and len(found) < HOLDERS_MAX:
            found[row["run_id"]] = Holder(
                run_id=row["run_id"], name=row["run"] or "", tenant=row["tenant"] or ""
            )
    holders = tuple(found[run_id] for run_id in sorted(found))
    return holders, {each.run_id: 2 + number for number, each in enumerate(holders)}
