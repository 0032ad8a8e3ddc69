"""The text of a file that somebody names, plain or packed by gzip (`.gz`)."""

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from baseai.ground.fault import Refused


@contextmanager
def text_of(file: Path) -> Iterator[Iterable[str]]:
    """Its lines, unpacked. Raises Refused where it cannot be read."""
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rt", encoding="utf-8", newline="") as packed:
                yield packed
        else:
            with file.open(encoding="utf-8", newline="") as plain:
                yield plain
    except (OSError, EOFError) as wrong:
        raise Refused(f"{file}: {getattr(wrong, 'strerror', None) or wrong}") from wrong
    except UnicodeDecodeError as wrong:
        raise Refused(f"{file}: it is not text: {wrong}") from wrong
