"""A hall is every accelerator of a fleet and what stands on it now, as columns that are kept, not rebuilt.

Invariant: what is free is what is installed less what is held; a gang is placed whole or not at all, and never onto
what is not there (`Misplaced` says which node and what of it). `place` and `remove` are the only writers, cost what
the nodes they touch cost, and undo each other exactly; all columns anybody else sees refuse writes.

A row is a *bay*: all accelerators of one model on one node. A node with two models has two rows, which show the same
CPU, memory, disk and power, because they share them. Rows of one rack hang under one breaker: what one of them draws
is gone for all. Rows stand in the order of node ids, then models.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from baseai.ground.fault import Fault
from baseai.scheduling.gang import WHOLE, Shape

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_Kind = TypeVar("_Kind", bound=np.generic)

UNBOUNDED = 1 << 60  # of what is not modelled on a node there is always enough
NOBODY = -1  # in `tenant`: no gang whose owner counts stands on the node
SEVERAL = -2  # in `tenant`: two owners stand there already, so that nobody joins
NO_DEVICE = -1  # in `free`, beyond the last accelerator of a bay


@dataclass(frozen=True, slots=True, kw_only=True)
class Bay:
    """The accelerators of one model on one node, and what the node has beside them. None: not modelled."""

    node_id: str
    model: str = ""
    devices: int = 0
    cpu_milli: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    watts: int | None = None  # that runs may draw under the rack's breaker; the same on all bays of a rack
    site: str = ""
    country: str = ""
    leaf: str = ""  # switch the node hangs on
    pod: str = ""  # of the fabric: a group of leaves
    rack: str = ""  # whose breaker feeds it; "": one of its own
    shared: bool = True  # the node keeps tenants apart, so that anybody may join
    container: bool = True  # it has a container runtime


class Spot(NamedTuple):
    """Where one pod goes: a row of the hall, and which accelerators of it."""

    row: int
    devices: tuple[int, ...] = ()


Spots = Sequence[Spot]  # one for each pod of a gang, in the order of pods


class Held(NamedTuple):
    """What one gang holds."""

    shape: Shape
    spots: tuple[Spot, ...]


class Misplaced(Fault):
    """A gang was to be put where it does not fit."""

    def __init__(self, run_id: str, node_id: str, resource: str, why: str) -> None:
        super().__init__(run_id, node_id, resource, why)
        self.run_id = run_id
        self.node_id = node_id
        self.resource = resource
        self.why = why

    def __str__(self) -> str:
        where = f" on {self.node_id}" if self.node_id else ""
        return f"run {self.run_id} cannot be placed{where}: {self.resource}: {self.why}"


class Hall:
    """Columns over rows; see the head of this file. `hall_of` builds one, `copy` gives one to try things on."""

    __slots__ = (
        "_country", "_cpu", "_disk", "_domains", "_emptied", "_fed", "_free", "_held", "_largest", "_masks", "_memory",
        "_owners", "_ready", "_siblings", "_spare", "_tenant", "_watchers", "_watts", "_whole", "all_ready",
        "all_shared", "bays", "container", "countries", "cpu_milli", "devices", "disk_mib", "free", "largest", "leaf",
        "leaves", "memory_mib", "model", "models", "node", "node_ids", "origin", "pod", "pods", "rack", "racks",
        "ready", "shared", "site", "sites", "spare", "tenant", "tenants", "watts", "whole",
    )  # fmt: skip

    bays: tuple[Bay, ...]
    node_ids: tuple[str, ...]  # of each row
    node: Ints  # number of the node of each row, ascending
    models: tuple[str, ...]  # names in order; `model` holds their numbers
    model: Ints
    devices: Ints  # accelerators installed in each row
    leaf: Ints  # numbers into `leaves`, by name
    leaves: tuple[str, ...]
    pod: Ints
    pods: tuple[str, ...]
    rack: Ints
    racks: tuple[str, ...]
    site: Ints
    sites: tuple[str, ...]
    countries: tuple[str, ...]  # of each row, by name
    shared: Bools
    all_shared: bool
    container: Bools
    tenants: dict[str, int]  # numbers in `tenant`, as owners were first seen
    origin: "Hall | None"  # of a narrowed view: the hall it shows
    # What moves, as views that refuse writes:
    free: NDArray[
        np.int32
    ]  # (rows, most devices): thousandths left of each accelerator, NO_DEVICE beyond the last
    largest: Ints  # the most that is left of one accelerator of the row
    whole: Ints  # accelerators of which nothing is taken
    spare: Ints  # thousandths left in all
    cpu_milli: Ints
    memory_mib: Ints
    disk_mib: Ints
    watts: Ints
    tenant: Ints  # whose gangs stand on the node of each row: an owner's number, NOBODY or SEVERAL
    ready: Bools
    all_ready: bool

    def __init__(self, bays: Iterable[Bay]) -> None:
        rows = tuple(sorted(bays, key=lambda bay: (bay.node_id, bay.model)))
        count = len(rows)
        keys = [(bay.node_id, bay.model) for bay in rows]
        if len(set(keys)) != count:
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"node {twice[0]} stands in the hall twice with model {twice[1] or 'none'}")
        self.bays = rows
        self.node_ids = tuple(bay.node_id for bay in rows)
        nodes = {node_id: number for number, node_id in enumerate(dict.fromkeys(self.node_ids))}
        self.node = _ints([nodes[node_id] for node_id in self.node_ids])
        self.models, self.model = _coded([bay.model for bay in rows])
        self.leaves, self.leaf = _coded([bay.leaf for bay in rows])
        self.pods, self.pod = _coded([bay.pod for bay in rows])
        self.racks, self.rack = _coded([bay.rack for bay in rows])
        self.sites, self.site = _coded([bay.site for bay in rows])
        self.countries = tuple(bay.country for bay in rows)
        self._country = _coded(self.countries)
        self.devices = _ints([bay.devices for bay in rows])
        most = max([1, *(bay.devices for bay in rows)])
        self._free = np.full((count, most), NO_DEVICE, dtype=np.int32)
        for row, bay in enumerate(rows):
            self._free[row, : bay.devices] = WHOLE
        self._largest = np.where(self.devices > 0, WHOLE, 0)
        self._whole = self.devices.copy()
        self._spare = self.devices * WHOLE
        self._cpu = _amounts([bay.cpu_milli for bay in rows])
        self._memory = _amounts([bay.memory_mib for bay in rows])
        self._disk = _amounts([bay.disk_mib for bay in rows])
        self._watts = _amounts([bay.watts for bay in rows])
        self._ready = np.ones(count, dtype=np.bool_)
        self.all_ready = True
        self.shared = np.array([bay.shared for bay in rows], dtype=np.bool_)
        self.all_shared = bool(self.shared.all())
        self.container = np.array([bay.container for bay in rows], dtype=np.bool_)
        self._tenant = np.full(count, NOBODY, dtype=np.int64)
        self.tenants = {}
        self._owners: dict[int, dict[int, int]] = {}  # of each node: pods by owner
        self.origin = None
        self._siblings: dict[int, tuple[int, ...]] = {}
        for row in range(1, count):
            if self.node_ids[row] == self.node_ids[row - 1]:
                family = (*self._siblings.get(row - 1, (row - 1,)), row)
                self._siblings.update(dict.fromkeys(family, family))
        self._fed = _fed_together(rows)  # of each row that has a rack: all rows of it
        self._domains: dict[str, Ints] = {}
        self._held: dict[str, Held] = {}
        self._emptied: Hall | None = None  # the same bays with nothing on them, once somebody has asked
        self._masks: dict[object, Bools | None] = {}  # by shape, and by what of a shape decides it
        self._watchers: list[set[int]] = []
        for fixed in (
            self.node, self.model, self.leaf, self.pod, self.rack, self.site, self.devices, self.shared, self.container
        ):  # fmt: skip
            fixed.setflags(write=False)
        self._show()

    def _show(self) -> None:
        self.free = _shown(self._free)
        self.largest, self.whole, self.spare = (
            _shown(self._largest),
            _shown(self._whole),
            _shown(self._spare),
        )
        self.cpu_milli, self.memory_mib = _shown(self._cpu), _shown(self._memory)
        self.disk_mib, self.watts = _shown(self._disk), _shown(self._watts)
        self.ready, self.tenant = _shown(self._ready), _shown(self._tenant)

    def __len__(self) -> int:
        return len(self.bays)

    @property
    def held(self) -> Mapping[str, Held]:
        """What every gang holds, by run."""
        return self._held

    @property
    def fed(self) -> Mapping[int, tuple[int, ...]]:
        """Rows under one breaker, itself included, by each of them; a row without a rack is not in it."""
        return self._fed

    @property
    def siblings(self) -> Mapping[int, tuple[int, ...]]:
        """Rows of one node, itself included, by each of them; a row that has its node to itself is not in it."""
        return self._siblings

    @property
    def milli_installed(self) -> int:
        return int(self.devices.sum()) * WHOLE

    @property
    def size_text(self) -> str:
        return f"{len(set(self.node_ids)):,} nodes, {int(self.devices.sum()):,} accelerators"

    def copy(self) -> "Hall":
        """A hall of its own that stands as this one does. Nobody watches it. O(rows + gangs)."""
        twin = Hall.__new__(Hall)
        for name in (
            "bays", "node_ids", "node", "models", "model", "leaves", "leaf", "pods", "pod", "rack", "racks", "sites",
            "site", "countries", "_country", "devices", "all_ready", "_siblings", "_fed", "_domains", "_masks",
            "shared", "all_shared", "container", "tenants",
        ):  # fmt: skip
            setattr(twin, name, getattr(self, name))
        for name in _MOVING:
            setattr(twin, name, getattr(self, name).copy())
        twin._held = self._held.copy()
        twin._owners = {node: owners.copy() for node, owners in self._owners.items()}
        twin._watchers, twin._emptied, twin.origin = [], self._emptied, None
        twin._show()
        return twin

    def narrowed(self, open_rows: Bools) -> "Hall":
        """A view of this hall in which only these rows take gangs: it moves as this one does. Nothing is put there.

        open_rows: one truth a row. O(rows), with nothing copied but the rows that are ready.
        """
        view = Hall.__new__(Hall)
        for name in Hall.__slots__:
            if name not in ("_ready", "ready", "all_ready", "_watchers", "origin"):
                setattr(view, name, getattr(self, name))
        view._ready = self._ready & open_rows
        view.ready = _shown(view._ready)
        view.all_ready, view._watchers, view.origin = False, [], self.origin or self
        return view

    # ------------------------------------------------------------------------------------------- what fits

    def permitted(self, shape: Shape) -> Bools | None:
        """Rows whose model, site and country the shape allows; None for all. The same array each time."""
        if shape in self._masks:
            return self._masks[shape]
        where = (shape.models, shape.sites, shape.residency, shape.container)  # many shapes share one
        if where in self._masks:
            self._masks[shape] = self._masks[where]
            return self._masks[shape]
        mask: Bools | None = None
        if shape.models:
            mask = np.isin(self.model, _numbers(self.models, shape.models))
        if shape.sites or shape.residency:
            here = self.may_lie(shape)
            mask = here if mask is None else mask & here
        if shape.container and not self.container.all():
            mask = self.container.copy() if mask is None else mask & self.container
        if mask is not None:
            mask.setflags(write=False)
        self._masks[shape] = self._masks[where] = mask
        return mask

    def may_lie(self, shape: Shape) -> Bools:
        """Rows whose site, and whose site or country for its data, the shape allows. A new array; O(rows)."""
        within = np.ones(len(self), dtype=np.bool_)
        if shape.sites:
            within &= np.isin(self.site, _numbers(self.sites, shape.sites))
        if shape.residency:
            at_home = np.isin(self.site, _numbers(self.sites, shape.residency))
            names, country = self._country
            within &= at_home | np.isin(country, _numbers(names, shape.residency))
        return within

    def fits(self, shape: Shape, rows: Ints | None = None) -> Bools:
        """Which of these rows, of all where None, can take one pod of the shape now. A new array; O(rows)."""
        at = slice(None) if rows is None else rows
        milli = shape.milli
        if milli == 0:
            fit: Bools = self._cpu[at] >= shape.cpu_milli
        else:
            fit = self._largest[at] >= milli if milli < WHOLE else self._whole[at] >= milli // WHOLE
            if shape.cpu_milli:
                fit &= self._cpu[at] >= shape.cpu_milli
        if shape.memory_mib:
            fit &= self._memory[at] >= shape.memory_mib
        if shape.disk_mib:
            fit &= self._disk[at] >= shape.disk_mib
        if shape.watts:
            fit &= self._watts[at] >= shape.watts
        mask = self.permitted(shape)
        if mask is not None:
            fit &= mask[at]
        if not self.all_ready:
            fit &= self._ready[at]
        if shape.tenant and not self.all_shared:
            fit &= self.joined_by(shape.tenant)[at]
        return fit

    def joined_by(self, tenant: str) -> Bools:
        """Rows on whose node isolation, or who stands there, lets this tenant in."""
        own = self.tenants.get(tenant, SEVERAL - 1)
        may: Bools = self.shared | (self._tenant == NOBODY) | (self._tenant == own)
        return may

    def room(self, shape: Shape) -> Ints:
        """How many pods of the shape each row can take now, counted by itself; at most `shape.pods`. O(rows)."""
        most: Ints = np.where(self.fits(shape), np.int64(1 if shape.apart else shape.pods), np.int64(0))
        if shape.pods == 1 or shape.apart:
            return most
        if shape.milli >= WHOLE:
            np.minimum(most, self._whole // shape.devices, out=most)
        elif shape.milli:
            np.minimum(most, (np.maximum(self._free, 0) // shape.milli).sum(axis=1), out=most)
        for column, amount in (
            (self._cpu, shape.cpu_milli),
            (self._memory, shape.memory_mib),
            (self._disk, shape.disk_mib),
            (self._watts, shape.watts),
        ):
            if amount:
                np.minimum(most, column // amount, out=most)
        return np.maximum(most, 0, out=most) if shape.watts else most  # power may be overdrawn by what stands

    def room_together(self, shape: Shape) -> Ints:
        """As `room`, but rows under one breaker have together no more than it lets through, the first rows first.

        Any set of rows holds at once at least as many pods of the shape as they have here.
        """
        return self.under_breakers(shape, self.room(shape), self._watts)

    def under_breakers(self, shape: Shape, room: Ints, watts: Ints) -> Ints:
        """`room`, pods by row, cut to what the rows of each rack may draw together, the first rows first.

        Rows of which the gang takes one or the other, for it stays on one model or in one domain, cut each other not.
        watts: left for each row, as in the column of that name, now or at another instant. O(rows log rows).
        """
        if not shape.watts or not self._fed or shape.pods == 1:
            return room
        together = self.rack
        if shape.one_model:
            together = together * len(self.models) + self.model
        if shape.reach:
            domain = self.domain(shape.reach)
            together = together * (int(domain.max()) + 1) + domain
        by_rack = together.argsort(kind="stable")
        rack, together = self.rack[by_rack], together[by_rack]
        before = room[by_rack].cumsum() - room[by_rack]
        before -= before[np.searchsorted(together, together)]  # pods in such rows that come first
        fed = np.array([name != "" for name in self.racks], dtype=np.bool_)[rack]
        most = np.where(fed, watts[by_rack] // shape.watts, UNBOUNDED)
        found = room.copy()
        found[by_rack] = np.clip(most - before, 0, room[by_rack])
        return found

    def domain(self, reach: str) -> Ints:
        """The number of the node, rack, leaf, pod or site that each row is in. The same array each time.

        A row whose rack, leaf or pod is not known shares it with its own node alone, or with its leaf.
        """
        if reach == "node":
            return self.node
        if reach not in self._domains:
            names, column = {
                "rack": (self.racks, self.rack), "leaf": (self.leaves, self.leaf), "pod": (self.pods, self.pod),
                "site": (self.sites, self.site),
            }[reach]  # fmt: skip
            if reach != "site" and "" in names:
                beyond = len(names) + (self.domain("leaf") if reach == "pod" else self.node)
                column = np.where(column == names.index(""), beyond, column)
                column = np.unique(column, return_inverse=True)[1].astype(np.int64)
                column.setflags(write=False)
            self._domains[reach] = column
        return self._domains[reach]

    def most_together(self, shape: Shape, room: Ints, *, anywhere: bool = False) -> int:
        """The most pods of the gang that rows hold which are in one domain of its reach, and of one model if so asked.

        room: pods that each row takes. anywhere: as if it had no reach.
        """
        apart: Ints = np.zeros(len(self), dtype=np.int64)
        if shape.reach and not anywhere:
            apart = self.domain(shape.reach)
        if shape.one_model:
            apart = apart * len(self.models) + self.model
        return int(np.bincount(apart, weights=room).max(initial=0))

    def holds(self, row: int, shape: Shape) -> bool:
        """Whether this row can take one pod of the shape now. O(1)."""
        mask = self.permitted(shape)
        return bool(
            (mask is None or mask[row])
            and self._ready[row]
            and (not shape.tenant or self.all_shared or self.joined_by(shape.tenant)[row])
            and (shape.milli >= WHOLE or self._largest[row] >= shape.milli)
            and (shape.milli < WHOLE or self._whole[row] >= shape.devices)
            and self._cpu[row] >= shape.cpu_milli
            and self._memory[row] >= shape.memory_mib
            and self._disk[row] >= shape.disk_mib
            and self._watts[row] >= shape.watts
        )

    def devices_for(self, row: int, shape: Shape) -> tuple[int, ...]:
        """The accelerators one pod takes on a row that fits: whole ones lowest first, a share where it is tightest."""
        if shape.milli == 0:
            return ()
        return _devices(self._free[row].tolist(), shape)

    def spot(self, row: int, shape: Shape) -> Spot:
        """One pod on a row that fits."""
        return Spot(row, self.devices_for(row, shape))

    def spots(self, shape: Shape, rows: Iterable[int]) -> tuple[Spot, ...] | None:
        """The whole gang over these rows, each filled before the next is touched; None where they do not hold it.

        rows: in the order of preference; rows that have no room are passed over.
        """
        if shape.pods == 1:
            for row in rows:
                if self.holds(row, shape):
                    return (self.spot(row, shape),)
            return None
        room, nodes = self.room(shape), set[int]()
        drawing: dict[int, int] = {}  # pods of it under each breaker so far
        chosen: list[Spot] = []
        for row in rows:
            if shape.apart and int(self.node[row]) in nodes:
                continue
            count = min(int(room[row]), shape.pods - len(chosen))
            if shape.watts and row in self._fed:
                rack = int(self.rack[row])
                count = min(count, int(self._watts[row]) // shape.watts - drawing.get(rack, 0))
                drawing[rack] = drawing.get(rack, 0) + max(0, count)
            if count <= 0:
                continue
            nodes.add(int(self.node[row]))
            if shape.milli == 0:
                chosen += [Spot(row)] * count
            else:
                left = self._free[row].tolist()
                for _ in range(count):
                    devices = _devices(left, shape)
                    chosen.append(Spot(row, devices))
                    for device in devices:
                        left[device] -= shape.share
            if len(chosen) == shape.pods:
                return tuple(chosen)
        return None

    def could_ever(self, shape: Shape) -> str:
        """Empty where the gang fits into this hall when nothing is on it, else what there is too little of."""
        empty = self
        if self._held or not self.all_ready:
            self._emptied = empty = self._emptied or Hall(self.bays)
        mask = self.permitted(shape)
        fit = np.ones(len(self), dtype=np.bool_) if mask is None else mask.copy()
        if not fit.any():
            return "gpu_models" if shape.models else "site"
        steps: list[tuple[str, Bools]] = [
            ("gpu_milli", empty.devices >= shape.devices),
            ("cpu_milli", empty.cpu_milli >= shape.cpu_milli),
            ("mem_mib", empty.memory_mib >= shape.memory_mib),
            ("disk_mib", empty.disk_mib >= shape.disk_mib),
            ("watts", empty.watts >= shape.watts),
        ]
        for name, step in steps:
            fit &= step
            if not fit.any():
                return name
        room = empty.room_together(shape)
        if self.most_together(shape, room) >= shape.pods:
            return ""
        anywhere = self.most_together(shape, room, anywhere=True)
        return "topology" if anywhere >= shape.pods else "pods"

    # ------------------------------------------------------------------------------------------ what moves

    def place(self, run_id: str, shape: Shape, spots: Spots, *, stands: bool = False) -> None:
        """Put a gang onto these spots. Raises Misplaced, and then nothing has changed. O(pods).

        stands: it is there in truth; whether the node would still take it, or the shape go there, is not asked.
        """
        if run_id in self._held:
            raise Misplaced(run_id, "", "pods", "it is placed already")
        if len(spots) != shape.pods:
            raise Misplaced(run_id, "", "pods", f"{len(spots)} spots for a gang of {shape.pods}")
        done = 0
        try:
            for spot in spots:
                self._check(run_id, shape, spot, stands)
                self._move(shape, spot, 1)
                done += 1
            if shape.pods > 1 and not stands:
                self._check_together(run_id, shape, spots)
        except Misplaced:
            for spot in spots[:done]:
                self._move(shape, spot, -1)
            raise
        self._held[run_id] = Held(shape, tuple(spots))

    def remove(self, run_id: str) -> Held:
        """Take a gang off again; what it held. Raises KeyError where it holds nothing. O(pods)."""
        held = self._held.pop(run_id)
        for spot in held.spots:
            self._move(held.shape, spot, -1)
        return held

    def set_ready(self, node_id: str, ready: bool) -> None:
        """Open a node to new gangs or close it. What stands on it stays. O(rows)."""
        rows = [row for row, name in enumerate(self.node_ids) if name == node_id]
        if not rows:
            raise KeyError(node_id)
        for row in rows:
            self._ready[row] = ready
        self.all_ready = bool(self._ready.all())
        for watcher in self._watchers:
            watcher.update(rows)

    def open_rows(self, ready: Bools) -> None:
        """Say of every row at once whether it takes new gangs. What stands on it stays. O(rows)."""
        changed = (self._ready != ready).nonzero()[0].tolist()
        self._ready[:] = ready
        self.all_ready = bool(self._ready.all())
        for watcher in self._watchers:
            watcher.update(changed)

    def watch(self) -> set[int]:
        """A set into which every row that changes is put from now on. Whoever asked for it empties it."""
        watcher: set[int] = set()
        self._watchers.append(watcher)
        return watcher

    def _check(self, run_id: str, shape: Shape, spot: Spot, stands: bool) -> None:
        row = spot.row
        if not 0 <= row < len(self.bays):
            raise Misplaced(run_id, "", "node", f"row {row} of a hall of {len(self.bays)}")
        node_id = self.node_ids[row]
        if not stands and not self._ready[row]:
            raise Misplaced(run_id, node_id, "node", "it takes no runs now")
        if not stands and shape.tenant and not self.all_shared and not self.joined_by(shape.tenant)[row]:
            raise Misplaced(
                run_id, node_id, "tenant", "another tenant stands there, and nothing keeps them apart"
            )
        mask = None if stands else self.permitted(shape)
        if mask is not None and not mask[row]:
            raise Misplaced(
                run_id, node_id, "gpu_models", f"{self.models[self.model[row]]} at its site is not allowed"
            )
        devices = spot.devices
        if len(devices) != shape.devices or len(set(devices)) != len(devices):
            raise Misplaced(
                run_id, node_id, "gpu_milli", f"it needs {shape.devices} different devices, got {devices}"
            )
        installed = self.bays[row].devices
        for device in devices:
            if not 0 <= device < installed:
                raise Misplaced(run_id, node_id, "gpu_milli", f"device {device} of {installed}")
            left = int(self._free[row, device])
            if left < shape.share:
                raise Misplaced(
                    run_id,
                    node_id,
                    "gpu_milli",
                    f"device {device} has {left} milli left, {shape.share} asked for",
                )
        for name, column, amount in (
            ("cpu_milli", self._cpu, shape.cpu_milli),
            ("mem_mib", self._memory, shape.memory_mib),
            ("disk_mib", self._disk, shape.disk_mib),
            ("watts", self._watts, shape.watts),
        ):
            if stands and name == "watts":
                continue  # its breaker may have been changed under it
            if amount and column[row] < amount:
                raise Misplaced(run_id, node_id, name, f"{column[row]} left, {amount} asked for")

    def _check_together(self, run_id: str, shape: Shape, spots: Spots) -> None:
        if shape.one_model and len({int(self.model[spot.row]) for spot in spots}) > 1:
            raise Misplaced(run_id, "", "gpu_models", "its pods must all be on one model")
        if shape.apart and len({int(self.node[spot.row]) for spot in spots}) < len(spots):
            raise Misplaced(run_id, "", "node", "its pods must be on different nodes")
        if shape.reach:
            domain = self.domain(shape.reach)
            if len({int(domain[spot.row]) for spot in spots}) > 1:
                raise Misplaced(run_id, "", "topology", f"its pods must all be within one {shape.reach}")

    def _move(self, shape: Shape, spot: Spot, sign: int) -> None:
        """Take a pod's needs off its row (sign 1) or give them back (-1)."""
        row = spot.row
        if spot.devices:
            left = self._free[row].tolist()
            share = sign * shape.share
            for device in spot.devices:
                left[device] -= share
            self._free[row] = left
            self._largest[row] = max(left)
            self._whole[row] = left.count(WHOLE)
            self._spare[row] -= share * len(spot.devices)
        rows = self._siblings.get(row, (row,)) if self._siblings else (row,)
        for each in rows:
            if shape.cpu_milli:
                self._cpu[each] -= sign * shape.cpu_milli
            if shape.memory_mib:
                self._memory[each] -= sign * shape.memory_mib
            if shape.disk_mib:
                self._disk[each] -= sign * shape.disk_mib
        if shape.tenant and not self.all_shared:
            self._note_owner(row, rows, shape.tenant, sign)
        if shape.watts:
            rows = self._fed.get(row, rows)
            for each in rows:
                self._watts[each] -= sign * shape.watts
        for watcher in self._watchers:
            watcher.update(rows)

    def _note_owner(self, row: int, rows: Sequence[int], tenant: str, sign: int) -> None:
        """One pod more (sign 1) or less (-1) of this tenant on the node of these rows."""
        own = self.tenants.setdefault(tenant, len(self.tenants))
        node = int(self.node[row])
        owners = self._owners.setdefault(node, {})
        owners[own] = owners.get(own, 0) + sign
        if not owners[own]:
            del owners[own]
        code = NOBODY if not owners else SEVERAL if len(owners) > 1 else next(iter(owners))
        for each in rows:
            self._tenant[each] = code


_MOVING = ("_free", "_largest", "_whole", "_spare", "_cpu", "_memory", "_disk", "_watts", "_ready", "_tenant")


def _devices(left: list[int], shape: Shape) -> tuple[int, ...]:
    """From the thousandths left of each device: the tightest that holds a share, or the first whole ones."""
    share = shape.share
    if shape.devices == 1 and share < WHOLE:
        tightest = min((milli for milli in left if milli >= share), default=None)
        return () if tightest is None else (left.index(tightest),)
    return tuple([device for device, milli in enumerate(left) if milli == WHOLE][: shape.devices])


def _fed_together(rows: Sequence[Bay]) -> dict[int, tuple[int, ...]]:
    """The rows that hang under the breaker of each row that has a rack."""
    of_rack: dict[str, list[int]] = {}
    rack_of: dict[str, str] = {}
    for row, bay in enumerate(rows):
        if rack_of.setdefault(bay.node_id, bay.rack) != bay.rack:
            raise ValueError(f"node {bay.node_id} stands in two racks")
        if bay.rack:
            of_rack.setdefault(bay.rack, []).append(row)
    for rack, together in of_rack.items():
        if len({rows[row].watts for row in together}) > 1:
            raise ValueError(f"the bays of rack {rack} differ in what they may draw under one breaker")
    return {row: together for together in map(tuple, of_rack.values()) for row in together}


def _coded(names: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """The different names in order, and the number of each."""
    known = sorted(set(names))
    number_of = {name: number for number, name in enumerate(known)}
    return tuple(known), _ints([number_of[name] for name in names])


def _numbers(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    return [number for number, name in enumerate(names) if name in wanted]


def _ints(numbers: Sequence[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)


def _amounts(amounts: Sequence[int | None]) -> Ints:
    return _ints([UNBOUNDED if amount is None else amount for amount in amounts])


def _shown(column: NDArray[_Kind]) -> NDArray[_Kind]:
    view = column.view()
    view.setflags(write=False)
    return view
