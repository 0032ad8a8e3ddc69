"""An upload is a file of a run: brought before the run is submitted, known by its digest.

Invariant: the digest is the SHA-256 of the content, checked as it arrives; `path` lies inside the run's folder.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file of a run, uploaded before, and where it shall lie."""

    path: str
    digest: str
    bytes: int
    mode: int

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in self.path:
            raise ValueError(f"{self.path!r} lies outside the run's folder")
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError(f"{self.digest!r} is not a SHA-256 digest")
