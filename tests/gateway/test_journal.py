"""The journal: what a gateway was told survives its death, whole lines and no others, and belongs to one at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.gateway.journal import Journal, close_left, closed_segments, gateways_in, taken_over
from baseai.gateway.seams import Told
from baseai.gateway.segment import Sums, line_of, told_in
from tests.gateway.counted import NOON_S, told

ROOT = Path(__file__).resolve().parents[2]
TELLS = """
import sys
from pathlib import Path
from baseai.gateway.journal import Journal
from tests.gateway.counted import told
journal = Journal(Path(sys.argv[1]), "gw_dead")
{before}
for number in range({requests}):
    journal.ended(told(latency_ms=number / 10))
print("told", flush=True)
sys.stdin.read()
"""

anything = st.builds(
    told,
    run_id=st.none() | st.just("run_9"),
    at_s=st.integers(0, 10**13).map(lambda ms: round(NOON_S + ms / 1000, 3)),
    status=st.sampled_from([200, 400, 429, 499, 503]),
    outcome=st.sampled_from(["served", "failed", "lost", "refused", "gone"]),
    latency_ms=st.integers(0, 10**8).map(lambda us: us / 1000),
    first_byte_ms=st.none() | st.integers(0, 10**8).map(lambda us: us / 1000),
    tokens_in=st.integers(0, 10**6),
    tokens_out=st.integers(0, 10**6),
    cache=st.sampled_from([None, "hit", "collapsed"]),
    retries=st.integers(0, 3),
    slow=st.booleans(),
)


@given(anything)
def test_a_line_tells_what_is_counted(one: Told) -> None:
    assert told_in(line_of(one)) == one


def test_a_line_tells_neither_who_asked_nor_which_request_it_was() -> None:
    assert b"secret" not in line_of(told(key_id="key_secret", request_id="secret"))


@given(anything, st.data())
def test_a_line_that_is_cut_off_is_none(one: Told, data: st.DataObject) -> None:
    line = line_of(one)
    assert told_in(line[: data.draw(st.integers(0, len(line) - 1))]) is None


@given(st.lists(anything, max_size=20))
def test_sums_come_back_as_they_were(requests: list[Told]) -> None:
    sums = Sums()
    for one in requests:
        sums.add(one)
    again = Sums.from_bytes(sums.to_bytes())
    assert (again.stretches, again.uses) == (sums.stretches, sums.uses)


@pytest.mark.parametrize("wrong", [b"", b"{", b"[]", b'{"stretches": [{}], "uses": []}'])
def test_what_is_no_sums_is_said_to_be_none(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r"sums|Expecting"):
        Sums.from_bytes(wrong)


def segments(folder: Path, gateway: str) -> list[Sums]:
    return [Sums.from_bytes(path.read_bytes()) for _, path in closed_segments(folder, gateway)]


def requests_in(folder: Path, gateway: str) -> int:
    return sum(one.requests for sums in segments(folder, gateway) for one in sums.stretches)


def test_a_segment_is_closed_when_something_was_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "gw_1")
    journal.turn()
    assert segments(tmp_path, "gw_1") == []
    journal.ended(told())
    journal.turn()
    journal.ended(told())
    journal.close()
    assert [no for no, _ in closed_segments(tmp_path, "gw_1")] == [1, 2]
    assert requests_in(tmp_path, "gw_1") == 2
    assert not list(tmp_path.glob("*.lines"))


def kill_one_that_was_told(folder: Path, requests: int) -> None:
    script = TELLS.format(before="", requests=requests)
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"told\n"
    with taken_over(folder, "gw_dead") as ours:
        assert not ours  # it lives, and what it writes is its own
    child.kill()
    child.communicate()
    with (folder / "gw_dead.0000000001.lines").open("ab") as cut:
        cut.write(line_of(told())[:40])


@pytest.mark.anyio
async def test_what_a_killed_gateway_was_told_is_all_there(tmp_path: Path) -> None:
    kill_one_that_was_told(tmp_path, 1000)
    with taken_over(tmp_path, "gw_dead") as ours:
        assert ours
        await close_left(tmp_path, "gw_dead")
        await close_left(tmp_path, "gw_dead")
        as_it_went = Sums()
        for number in range(1000):
            as_it_went.add(told(latency_ms=number / 10))
        [sums] = segments(tmp_path, "gw_dead")
        assert (sums.stretches, sums.uses) == (as_it_went.stretches, as_it_went.uses)


def test_a_full_disk_loses_no_request_of_a_gateway_that_lives(tmp_path: Path) -> None:
    before = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))"
    )
    script = TELLS.format(before=before, requests=100) + (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert all(line.endswith(b'\\n') for line in Path(journal._path).read_bytes().splitlines(True))\n"
        "journal.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        input=b"",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert requests_in(tmp_path, "gw_dead") == 100


def test_a_dead_gateway_with_nothing_left_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "gw_1")
    journal.close()
    assert list(tmp_path.iterdir()) == []
    assert gateways_in(tmp_path) == []
