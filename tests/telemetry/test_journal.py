"""The journal: what is written is read again; what is torn was never acknowledged."""

import numpy as np
import pytest

from baseai.telemetry.field import ACCELERATOR
from baseai.telemetry.journal import Told, entries_in, record_of
from baseai.telemetry.sample import Batch
from baseai.telemetry.seen import LOOSE_MAX, Seen, digest_of
from baseai.telemetry.store import Place
from tests.telemetry.sampled import batch

TICK = batch(("a", 0, {"power_w": 300.5}), ("ã", 10, {"energy_j": 7}), sources={"power_w": "nvml"})
PLACES = Told(family="accelerator", places={"a": Place(node_id="n", site="s", model="m", rack="r")})


def test_what_is_written_is_read_again() -> None:
    (one, first, _), (two, second, end) = entries_in(record_of(TICK, 7) + record_of(PLACES, 8))
    assert (one, two) == (7, 8)
    assert end == len(record_of(TICK, 7) + record_of(PLACES, 8))
    assert second == PLACES
    assert isinstance(first, Batch)
    for name in ("batch_id", "family", "node_id", "site", "boot_id", "keys", "sources"):
        assert getattr(first, name) == getattr(TICK, name)
    for name in ("ts_ms", "values", "codes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(TICK, name))


@pytest.mark.parametrize("harm", ["torn", "a bit turned", "zeros"])
def test_reading_ends_before_what_is_harmed(harm: str) -> None:
    good, bad = record_of(TICK, 1), bytearray(record_of(TICK, 2))
    if harm == "torn":
        bad = bad[: len(bad) // 2]
    elif harm == "a bit turned":
        bad[len(bad) // 2] ^= 4
    else:
        bad = bytearray(len(bad))
    assert [(number, end) for number, _, end in entries_in(good + bytes(bad))] == [(1, len(good))]


def test_an_empty_batch_is_a_record_too() -> None:
    ((_, found, _),) = entries_in(record_of(batch(), 1))
    assert isinstance(found, Batch)
    assert found.values.shape == (0, len(ACCELERATOR.fields))


def test_names_are_known_before_and_after_they_are_packed() -> None:
    seen = Seen()
    names = [f"batch-{number}" for number in range(LOOSE_MAX + 100)]
    for name in names:
        seen.add(digest_of(name))
    assert all(digest_of(name) in seen for name in names)
    assert not any(digest_of(f"other-{number}") in seen for number in range(1_000))
