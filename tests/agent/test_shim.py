"""The shim hides secrets wherever a read cuts them, and keeps a log within its bounds."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from baseai.agent.shim import Log, Mask


@given(st.lists(st.integers(1, 9), max_size=20))
def test_a_secret_is_hidden_wherever_reads_cut_it(cuts: list[int]) -> None:
    text = b"a sesame b sesasesame c sesam"
    mask = Mask(["sesame", "abc"])  # three letters are too few to hide
    out, rest = b"", text
    for size in cuts:
        out += mask.through(rest[:size])
        rest = rest[size:]
    out += mask.through(rest) + mask.rest()
    assert out == b"a *** b sesa*** c sesam"


def test_a_log_keeps_its_newest_segments_under_their_offsets(tmp_path: Path) -> None:
    log = Log(str(tmp_path), segment_bytes=10, segments=3)
    log.write(b"".join(b"%03d\n" % number for number in range(13)))
    kept = sorted(tmp_path.glob("*.log"))
    assert [int(path.stem) for path in kept] == [30, 40, 50]
    assert b"".join(path.read_bytes() for path in kept) == b"7\n008\n009\n010\n011\n012\n"[-22:]
    assert log.end == 52
