"""A quantity is a number people write with a unit: memory, durations. Here it is parsed once, into integers.

Invariant: memory is whole MiB and a duration whole seconds; both binary and decimal units are understood
and never confused (`80GB` in a spec follows the trade's habit and means GiB, as accelerator names do).
"""

import re

_MEMORY = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?B?)?\s*$", re.IGNORECASE)
_MEMORY_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}
_SIZE_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(w|d|h|m|s)", re.IGNORECASE)
_DURATION_S = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}


def memory_mib(text: str | int | float) -> int:
    """`16GB`, `512MiB`, `1.5T` → MiB; a bare number is GiB. Raises ValueError with the fix."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return round(text * 1024)
    found = _MEMORY.match(str(text))
    if not found:
        raise ValueError(f"{text!r} is not an amount of memory; write it like 16GB or 512MB")
    return max(1, round(float(found[1]) * _MEMORY_MIB[found[2].upper()]))


def size_bytes(text: str | int | float) -> int:
    """`64KB`, `8MB`, `1.5GiB` → bytes, by 1024; a bare number is bytes. Raises ValueError with the fix."""
    found = re.match(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B?)?\s*$", str(text), re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is not a size; write it like 64KB or 8MB")
    return round(float(found[1]) * _SIZE_BYTES[found[2].upper()])


def duration_s(text: str | int | float) -> int:
    """`90s`, `1h30m`, `2d` → seconds; a bare number is seconds. Raises ValueError with the fix."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return round(text)
    compact = str(text).strip()
    parts = _DURATION.findall(compact)
    if not parts or _DURATION.sub("", compact).strip():
        raise ValueError(f"{text!r} is not a duration; write it like 30m, 1h30m or 2d")
    return round(sum(float(number) * _DURATION_S[unit.lower()] for number, unit in parts))


def shown_mib(mib: int) -> str:
    """MiB as people say them: `512 MiB`, `80 GiB`, `1.5 TiB`."""
    for size, unit in ((1024 * 1024, "TiB"), (1024, "GiB")):
        if mib >= size:
            return f"{mib / size:.4g} {unit}"
    return f"{mib} MiB"


def shown_s(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 05 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
