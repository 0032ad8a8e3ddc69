"""The byte at an offset of a stream never changes, whatever the bounded log drops."""

from hypothesis import given
from hypothesis import strategies as st

from baseai.agent.stream import Splice, piece_at, splice_over


def test_without_a_loss_the_stream_is_the_log() -> None:
    assert splice_over(100, [], log_begins=100) is None
    assert piece_at(100, []).log_offset == 100


def test_a_loss_is_told_in_its_place() -> None:
    splice = splice_over(100, [], log_begins=500)
    assert splice is not None
    assert splice.notice == "\n[baseai] 400 bytes of output were dropped here: the log is bounded\n"
    assert piece_at(99, [splice]).log_offset == 99
    assert piece_at(100, [splice]).notice == splice.notice.encode()
    assert piece_at(105, [splice]).notice == splice.notice.encode()[5:]
    assert piece_at(splice.resumes_at + 3, [splice]).log_offset == 503


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), max_size=30))
def test_a_stream_read_piece_by_piece_reads_the_same_again(turns: list[tuple[int, int]]) -> None:
    """In each turn the log's begin moves on by some bytes and a reader takes some: then all is read again."""
    splices: list[Splice] = []
    begins, offset, taken = 0, 0, []
    for size, dropped in turns:
        begins += dropped
        splice = splice_over(offset, splices, log_begins=begins)
        if splice is not None:
            splices.append(splice)
        piece = piece_at(offset, splices)
        for _ in range(len(piece.notice[:size]) if piece.notice else size):
            at = piece_at(offset, splices)
            taken.append(at.notice[:1] or at.log_offset)
            offset += 1
    again = [piece_at(each, splices) for each in range(offset)]
    assert [each.notice[:1] or each.log_offset for each in again] == taken
