"""A metric store keeps samples and answers for them: the latest, a range, an aggregate by site or model.

Invariant: what `append` has returned for is there after a kill; a batch is counted once however often it comes; a
rollup can be aggregated again exactly (min, max, sum, count, last, and the counter's difference). Unknown stays
unknown: NaN, with its code. One process writes. Every store passes the suite in tests/contracts/test_metric_store.py.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from baseai.ground.fault import Fault
from baseai.telemetry.field import Family
from baseai.telemetry.sample import Batch


class By(StrEnum):
    """What an aggregate is broken down by."""

    FLEET = "fleet"  # one line for everything
    SITE = "site"
    MODEL = "model"
    NODE = "node"
    KEY = "key"  # each thing by itself


class Tier(StrEnum):
    """How finely samples are kept. How long: `Retention`."""

    RAW = "raw"
    MINUTE = "minute"
    TEN_MINUTES = "ten_minutes"
    HOUR = "hour"


STEP_MS: Mapping[Tier, int] = {
    Tier.RAW: 0,
    Tier.MINUTE: 60_000,
    Tier.TEN_MINUTES: 600_000,
    Tier.HOUR: 3_600_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long each tier is kept."""

    raw_days: int = 14
    minute_days: int = 90
    ten_minutes_days: int = 730
    hour_days: int | None = None  # for ever: what was billed can be recomputed


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a thing stands and what it is; the store breaks down by these."""

    node_id: str
    site: str
    model: str = ""
    rack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of a batch."""

    rows: int  # new ones
    repeated: bool  # the batch was here before: nothing was counted twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The newest row of each thing, as columns.

    keys, ts_ms, places: shape (things,). values, codes: shape (things, fields) in the order of `family`.
    """

    family: Family
    keys: tuple[str, ...]
    places: tuple[Place, ...]
    ts_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    codes: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The samples of one thing over a time, oldest first.

    ts_ms: shape (ticks,). values, codes: shape (ticks, fields), in the order of `fields`. boots: shape (ticks,), a
    small number that changes where counters began again. A bucketed series has the mean of gauges and the last of
    the rest.
    """

    key: str
    fields: tuple[str, ...]
    tier: Tier
    ts_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    codes: NDArray[np.uint8]
    boots: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """One field over time, broken down.

    groups: the names of the lines that know something, sorted. ts_ms: shape (buckets,), each bucket's start, a
    multiple of `step_ms`; buckets are whole, so the first may begin before the range and the last end after it.
    The rest: shape (groups, buckets); NaN (0 for `count`) where nothing is known. `last` of several things is the sum
    of each one's last; of flags all or-ed, of codes the highest. `delta` is the sum of counters' differences: each
    belongs to the later of its two samples, however long before it the earlier one is, so adjoining ranges add up; a
    counter that fell, or whose node started anew, is counted from zero; NaN for what is no counter. `total` and `mean`
    of a counter are NaN: what it read, added up, says nothing.
    """

    field: str
    by: By
    tier: Tier  # the coarsest that holds the buckets
    step_ms: int
    groups: tuple[str, ...]
    ts_ms: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    total: NDArray[np.float64]
    count: NDArray[np.int64]
    last: NDArray[np.float64]
    delta: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: NDArray[np.float64] = self.total / self.count
        return mean


class MetricStore(Protocol):
    """Samples of one site, or of all. Instants are milliseconds UTC; ranges are [from, until).

    It is asked by several threads at once; one writes, one rolls up and expires beside it.
    """

    def place(self, family: Family, places: Mapping[str, Place]) -> None:
        """Say where things stand; what was said before of other keys stays. Durable when it returns."""

    def append(self, batch: Batch) -> Appended:
        """Keep a batch. Durable when it returns. Rows may be late and in any order; (key, instant) is kept once.

        Rows older than what `expire` has already forgotten are not taken. Raises StoreFull, with nothing of the batch
        counted, when the disk takes no more.
        """

    def append_all(self, batches: Sequence[Batch]) -> Sequence[Appended]:
        """Keep several batches, all or none, for the price of one wait for the disk."""

    def latest(self, family: Family, keys: Sequence[str] | None = None) -> Latest:
        """The newest row of each thing, of all things without `keys`; unknown keys are left out."""

    def range(
        self,
        family: Family,
        key: str,
        fields: Sequence[str],
        *,
        from_ms: int,
        until_ms: int,
        points_max: int | None = None,
    ) -> Series:
        """One thing over a time: every sample, or at most `points_max` points from the coarsest tier with them."""

    def aggregate(
        self,
        family: Family,
        field: str,
        *,
        from_ms: int,
        until_ms: int,
        by: By = By.FLEET,
        keys: Sequence[str] | None = None,
        points_max: int = 300,
    ) -> Aggregate:
        """One field over all things, or over `keys`: at most `points_max` buckets, from the coarsest tier with them."""

    def sources(self, family: Family, key: str) -> Mapping[str, str]:
        """Field → where its newest values come from."""

    def rollup(self, *, now_ms: int) -> None:
        """Seal hours that are over, and bring every tier up to date. Late rows are worked into sealed hours."""

    def expire(self, *, now_ms: int, retention: Retention) -> int:
        """Forget what is older than `retention`; how many files or partitions went."""

    def close(self) -> None:
        """Write what waits and let go. A kill instead loses nothing that was acknowledged."""


class AskedStore(Protocol):
    """The same store asked from another process. Raises StoreAway, which is retryable, when it does not answer."""

    async def latest(self, family: Family, keys: Sequence[str] | None = None) -> Latest: ...

    async def range(
        self,
        family: Family,
        key: str,
        fields: Sequence[str],
        *,
        from_ms: int,
        until_ms: int,
        points_max: int | None = None,
    ) -> Series: ...

    async def aggregate(
        self,
        family: Family,
        field: str,
        *,
        from_ms: int,
        until_ms: int,
        by: By = By.FLEET,
        keys: Sequence[str] | None = None,
        points_max: int = 300,
    ) -> Aggregate: ...

    async def sources(self, family: Family, key: str) -> Mapping[str, str]: ...

    def changes(self) -> AsyncIterator[None]:
        """Once for each moment in which something was appended, at most twice a second; for ever."""


class FedStore(Protocol):
    """The same store fed from another process. Raises StoreAway: then a batch may be kept or not, and is sent again."""

    async def place(self, family: Family, places: Mapping[str, Place]) -> None: ...

    async def append(self, batch: Batch) -> Appended:
        """Durable when it returns."""


class StoreFull(Fault):
    """The disk took no more: nothing of what was to be kept is counted, and it may be sent again."""

    retryable = True

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(folder, why)
        self.folder = folder
        self.why = why

    def __str__(self) -> str:
        return f"the metric store in {self.folder} can keep nothing more: {self.why}"


class StoreHeld(Fault):
    """Another process has this store open; one process writes."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"another process keeps the metric store in {self.folder}; only one can"


class StoreAway(Fault):
    """The process that keeps the samples gave no answer."""

    retryable = True

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the metric store gave no answer: {self.why}"
