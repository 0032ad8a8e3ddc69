"""Buckets: what processes admit together is what one alone would, and none that dies takes anything with it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from baseai.gateway.allowance import SECOND_NS, Allowance
from baseai.gateway.buckets import LANES, SETS, Bucket, Buckets, name_of

ROOT = Path(__file__).resolve().parents[2]
HAMMERS = """
import sys, time
from pathlib import Path
from baseai.gateway.allowance import SECOND_NS, Allowance
from baseai.gateway.buckets import Bucket, Buckets, name_of
buckets = Buckets(Path(sys.argv[1]))
bucket = Bucket(name_of("k"), Allowance(5000, 10 * SECOND_NS), holds=False)
print("ready", flush=True)
sys.stdin.readline()
admitted, until = 0, time.monotonic() + 1.0
while time.monotonic() < until:
    admitted += buckets.take([(bucket, 1)], now_ns=time.monotonic_ns())[0].wait_ns == 0
print(admitted, flush=True)
"""
HOLDS = """
import sys, time
from pathlib import Path
from baseai.gateway.allowance import SECOND_NS, Allowance
from baseai.gateway.buckets import Bucket, Buckets, name_of
buckets = Buckets(Path(sys.argv[1]))
bucket = Bucket(name_of("k"), Allowance(100, 60 * SECOND_NS), holds=True)
buckets.take([(bucket, 80)], now_ns=time.monotonic_ns())
print("held", flush=True)
sys.stdin.read()
"""


def requests(amount: int, every_s: float = 60, name: str = "k") -> Bucket:
    return Bucket(name_of(name), Allowance(amount, int(every_s * SECOND_NS)), holds=False)


def tokens(amount: int, every_s: float = 60, name: str = "k") -> Bucket:
    return Bucket(name_of(name), Allowance(amount, int(every_s * SECOND_NS)), holds=True)


@pytest.fixture
def buckets(tmp_path: Path) -> Iterator[Buckets]:
    opened = Buckets(tmp_path)
    yield opened
    opened.close()


def child(script: str, folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def fits(buckets: Buckets, bucket: Bucket, count: int = 1, now_ns: int = 0) -> bool:
    return buckets.take([(bucket, count)], now_ns=now_ns)[0].wait_ns == 0


def test_two_processes_admit_what_one_alone_would(tmp_path: Path) -> None:
    hammers = [child(HAMMERS, tmp_path) for _ in range(2)]
    for one in hammers:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
    began_s = time.monotonic()
    told = []
    for one in hammers:
        assert one.stdin is not None
        one.stdin.write(b"\n")
        one.stdin.flush()
    for one in hammers:
        out, _ = one.communicate(timeout=30)
        told.append(int(out))
    lasted_s = time.monotonic() - began_s
    assert 5000 <= sum(told) <= 5000 + 500 * lasted_s + 1
    assert min(told) > 0, f"one of them had nothing: {told}"


def test_what_a_killed_process_held_is_given_back_to_the_next(tmp_path: Path, buckets: Buckets) -> None:
    holder = child(HOLDS, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    now_ns = time.monotonic_ns()
    assert not fits(buckets, tokens(100), 30, now_ns)
    holder.kill()
    holder.communicate()
    heir = Buckets(tmp_path)
    try:
        assert fits(heir, tokens(100), 100, now_ns)
    finally:
        heir.close()


def test_what_is_asked_is_taken_of_all_buckets_or_of_none(buckets: Buckets) -> None:
    wide, narrow = requests(100, name="wide"), requests(1, name="narrow")
    assert [one.wait_ns for one in buckets.take([(wide, 1), (narrow, 1)], now_ns=0)] == [0, 0]
    first, second = buckets.take([(wide, 1), (narrow, 1)], now_ns=0)
    assert (first.wait_ns, second.wait_ns) == (0, 60 * SECOND_NS)
    assert first.bucket.allowance.left(first.level_ns) == 99


def test_what_is_held_flows_back_only_when_it_is_settled(buckets: Buckets) -> None:
    bucket = tokens(60)
    assert fits(buckets, bucket, 60)
    assert not fits(buckets, bucket, 1, now_ns=90 * SECOND_NS)
    buckets.settle([(bucket, 60)], 30, at_ns=0, now_ns=90 * SECOND_NS)
    assert fits(buckets, bucket, 60, now_ns=90 * SECOND_NS)  # taken at 0, it has flowed back by 30


def test_a_debt_is_waited_for(buckets: Buckets) -> None:
    bucket = tokens(60)
    assert fits(buckets, bucket, 10)
    buckets.settle([(bucket, 10)], 180, at_ns=0, now_ns=0)
    assert buckets.take([(bucket, 1)], now_ns=0)[0].wait_ns == 121 * SECOND_NS


@pytest.mark.parametrize("holds", [False, True])
def test_what_was_not_served_is_given_back(buckets: Buckets, holds: bool) -> None:
    bucket = tokens(2) if holds else requests(2)
    asked = [(bucket, 1)]
    for _ in range(5):
        assert fits(buckets, bucket)
        buckets.settle(asked, None, at_ns=0, now_ns=0)


def test_buckets_outlive_whoever_used_them(tmp_path: Path, buckets: Buckets) -> None:
    assert fits(buckets, requests(1))
    other = Buckets(tmp_path)
    try:
        assert not fits(other, requests(1))
    finally:
        other.close()


def test_a_restarted_machine_starts_with_full_buckets(tmp_path: Path) -> None:
    before = Buckets(tmp_path)
    assert fits(before, requests(1))
    before.close()
    with (tmp_path / "limits.buckets").open("r+b") as file:
        file.seek(16)
        file.write(b"another start    "[:16])
    after = Buckets(tmp_path)
    try:
        assert fits(after, requests(1))
    finally:
        after.close()


def test_more_askers_than_places_never_lose_one_that_stands_in_debt(buckets: Buckets) -> None:
    names = [f"key {number}" for number in range(SETS)]
    for name in names:
        assert fits(buckets, requests(1, name=name))
    assert not any(fits(buckets, requests(1, name=name)) for name in names)
    later_ns = 61 * SECOND_NS
    for number in range(10 * SETS):
        fits(buckets, requests(10**6, name=f"passer-by {number}"), now_ns=later_ns + number * SECOND_NS)
    assert fits(buckets, requests(1, name=names[0]), now_ns=later_ns)


def test_one_process_more_than_there_are_lanes_is_told_so(tmp_path: Path) -> None:
    opened = [Buckets(tmp_path) for _ in range(LANES)]
    try:
        with pytest.raises(OSError, match="16 gateway processes share"):
            Buckets(tmp_path)
    finally:
        for one in opened:
            one.close()


def test_a_stopped_process_holds_up_nobody_for_ever(tmp_path: Path, buckets: Buckets) -> None:
    import fcntl

    lock = os.open(tmp_path / "limits.buckets", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began_s = time.monotonic()
        assert fits(buckets, requests(1))
        assert time.monotonic() - began_s < 5
    finally:
        os.close(lock)
