"""Progress is what a run tells the outside: lines of JSON that are only ever appended, each in one write.

Invariant: a reader that follows the file sees whole lines in the order in which they became true.
"""

import json
import os
from pathlib import Path

from baseai.ground.clock import now_utc

FILE = "progress.jsonl"


def tell(attempt_folder: Path, kind: str, **facts: object) -> None:
    """Append one line, stamped with the machine's clock."""
    line = json.dumps({"at": now_utc().isoformat(), "kind": kind} | facts, allow_nan=False) + "\n"
    handle = os.open(attempt_folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
