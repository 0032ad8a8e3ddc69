"""A run's log is what its processes wrote, kept in segments: bounded, readable from any offset still there.

Invariant: an offset names a byte of the whole log for ever, also after the oldest segments were removed. Appending
the same bytes at the same offset again changes nothing. Only the server writes here.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENTS_MAX = 16  # 64 MiB of each node of each attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """Bytes of a log and where the next ones begin."""

    content: bytes
    next_offset: int


class LogFolder:
    """All runs' logs below one folder: `<run>/<attempt>/<node rank>/<segment>.log`."""

    def __init__(
        self, root: Path, *, segment_bytes: int = SEGMENT_BYTES, segments_max: int = SEGMENTS_MAX
    ) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._segments_max = segments_max

    def append(self, run_id: str, attempt_no: int, node_rank: int, offset: int, chunk: bytes) -> int:
        """Take `chunk` if it begins where the log ends; the offset from which more is wanted, either way."""
        folder = self._folder(run_id, attempt_no, node_rank)
        end = self._end(folder)
        if offset > end or offset + len(chunk) <= end:
            return end
        rest = memoryview(chunk)[end - offset :]
        folder.mkdir(parents=True, exist_ok=True)
        while rest:
            number, within = divmod(end, self._segment_bytes)
            part = rest[: self._segment_bytes - within]
            with (folder / f"{number:08d}.log").open("ab") as segment:
                segment.write(part)
            end += len(part)
            rest = rest[len(part) :]
        for path in list(self._segments(folder))[: -self._segments_max]:
            path.unlink()
        return end

    def read(self, run_id: str, attempt_no: int, node_rank: int, offset: int, most: int) -> LogPart:
        """Up to `most` bytes from `offset`, or from the oldest byte still kept."""
        folder = self._folder(run_id, attempt_no, node_rank)
        segments = list(self._segments(folder))
        if not segments:
            return LogPart(content=b"", next_offset=offset)
        at = max(offset, int(segments[0].stem) * self._segment_bytes)
        pieces: list[bytes] = []
        left = most
        for path in segments:
            begin = int(path.stem) * self._segment_bytes
            if begin + self._segment_bytes <= at or left <= 0:
                continue
            with path.open("rb") as segment:
                segment.seek(at - begin)
                piece = segment.read(left)
            if not piece:
                break
            pieces.append(piece)
            at += len(piece)
            left -= len(piece)
        return LogPart(content=b"".join(pieces), next_offset=at)

    def _end(self, folder: Path) -> int:
        last = None
        for last in self._segments(folder):  # noqa: B007 - the last one is what is wanted
            pass
        return 0 if last is None else int(last.stem) * self._segment_bytes + os.stat(last).st_size

    def _segments(self, folder: Path) -> Iterator[Path]:
        yield from sorted(folder.glob("*.log"))

    def _folder(self, run_id: str, attempt_no: int, node_rank: int) -> Path:
        return self._root / run_id / str(attempt_no) / str(node_rank)
