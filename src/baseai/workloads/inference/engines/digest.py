"""The digest of a model: what tells whether two replicas hold the same weights.

Invariant: equal bytes under equal names give equal digests, wherever they lie; nothing else is looked at.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def digest_of(files: Sequence[Path]) -> str:
    """sha256 over the files' names and contents, in the order of their names; of a single file, its own sha256."""
    if len(files) == 1:
        return _sha256(files[0])
    whole = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        whole.update(f"{path.name} {_sha256(path)}\n".encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
