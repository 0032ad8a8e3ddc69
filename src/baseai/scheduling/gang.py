"""A gang is what one run needs of a hall: equal pods, all of them at once or none.

Invariant: what decides whether a gang fits is its shape, and nothing else; two gangs of one shape are told apart by
when they came and whose they are. A gang says nothing of how long it will run: that is knowledge, and a policy has
as much of it as it is given (`baseai.scheduling.policy.seam`). Made where a workload is read; nothing changes it.
"""

from dataclasses import dataclass, field
from functools import cached_property

WHOLE = 1000  # thousandths of one accelerator
REACHES = ("leaf", "pod", "site")  # of the network, the narrowest first


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What each pod takes of one node, and where it may be.

    `milli` is 0 for no accelerator, 1 to 999 for a share of one, and k * 1000 for k whole ones of one node.
    """

    pods: int = 1
    milli: int = 0
    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    watts: int = 0  # under the rack's breaker
    models: tuple[str, ...] = ()  # any of these, the preferred first; empty where any model would do
    sites: tuple[str, ...] = ()  # empty means anywhere
    residency: tuple[str, ...] = ()  # sites or countries that data may not leave; empty means anywhere
    one_model: bool = False  # the pods must not be on different models
    apart: bool = False  # no two pods on one node
    tenant: str = (
        ""  # whose it is, where some node cannot keep tenants apart; empty where that decides nothing
    )
    container: bool = False  # only where a container runtime is
    reach: str = ""  # all pods within one leaf, pod or site of the network, or not at all; empty: anywhere
    near: str = ""  # the same where it can be had: tried first; narrower than `reach`

    def __post_init__(self) -> None:
        if self.pods < 1:
            raise ValueError(f"{self.pods} pods are no gang")
        if self.milli < 0 or (self.milli > WHOLE and self.milli % WHOLE):
            raise ValueError(f"{self.milli} milli is neither a share of one accelerator nor whole ones")
        if min(self.cpu_milli, self.memory_mib, self.disk_mib, self.watts) < 0:
            raise ValueError("a pod takes a negative amount")
        for reach in (self.reach, self.near):
            if reach and reach not in REACHES:
                raise ValueError(f"{reach} is no reach of the network: {', '.join(REACHES)}")
        if self.reach and self.near and REACHES.index(self.near) >= REACHES.index(self.reach):
            raise ValueError(f"to stand near one {self.near} is no narrower than within one {self.reach}")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # asked for at every decision, so counted once
        return hash(
            (
                self.pods, self.milli, self.cpu_milli, self.memory_mib, self.disk_mib, self.watts, self.models,
                self.sites, self.residency, self.tenant, self.container, self.reach, self.near,
            )
        )  # fmt: skip

    @cached_property
    def devices(self) -> int:
        """How many accelerators each pod touches."""
        return 0 if self.milli == 0 else 1 if self.milli < WHOLE else self.milli // WHOLE

    @cached_property
    def share(self) -> int:
        """Thousandths it takes of each of them."""
        return min(self.milli, WHOLE)

    @cached_property
    def milli_total(self) -> int:
        return self.pods * self.milli


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was agreed about a run beside what it needs. The defaults are those of a run of which nothing is said."""

    queue: str = ""  # the leaf of the tree of queues in which it waits
    owner: str = ""  # the tenant whose it is
    priority: int = 50  # 0 to 100 within its queue, the higher the sooner
    lasts_most_s: float | None = (
        None  # its lease ends so long after it starts, whatever it does; None: nobody knows
    )
    deadline_s: float | None = None  # by when it shall be done, on the clock of `submit_s`
    min_runtime_s: float = 0.0  # of each start, before it may be preempted
    spot: bool = False  # gives way to every run that is not
    reservation: str = ""  # whose held capacity it may use
    margin: float = 0.0  # contribution of an accelerator-hour, in US$; a tie-break
    spread: str = ""  # runs of one name had best not share a failure domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """One run as a policy sees it. `number` orders by submission and is unique: the tie-break of everything."""

    run_id: str
    number: int
    shape: Shape
    submit_s: float = 0.0  # seconds on the replay's clock; in packing, the ordinal of the arrival
    group: str = ""  # whose it is, or its class
    terms: Terms = Terms()
    others: tuple[Shape, ...] = ()  # that would do as well where `shape` does not fit, the preferred first
    shapes: tuple[Shape, ...] = field(init=False, repr=False, compare=False)  # all that would do

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", (self.shape, *self.others))
