"""A trace is the requests that one service was sent, with when and how much each asked for.

Invariant: a file is read whole or refused with file, line and field (`BadRow`); requests come in order of time, the
first at 0 s. Text in, values out: opening files is for doors. Which format a file has is told by its first line.

    requests   at_s,prompt_tokens,answer_tokens                       (ours; both counts may be empty)
    azure      TIMESTAMP,ContextTokens,GeneratedTokens                (Azure/AzurePublicDataset)
    mooncake   {"timestamp": ms, "input_length", "output_length"}     (kvcache-ai/Mooncake, JSON lines)
    rates      t_s,requests_per_s[,active_clients]                    (rates of equal stretches, as of alibaba/ServeGen)

A file of rates holds no requests: they are drawn, with gaps of a Gamma distribution in the time that the rate fills.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import NamedTuple

import numpy as np

from baseai.twin.neutral import BadRow

OURS = ("at_s", "prompt_tokens", "answer_tokens")
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
RATES = ("t_s", "requests_per_s")
REQUESTS_MOST = 20_000_000


class Request(NamedTuple):
    """One request."""

    at_s: float  # since the trace began
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How requests are made of rates."""

    rng: np.random.Generator
    share: float = 1.0  # of the recorded rate
    gap_variation: float = 1.0  # deviation of gaps over their mean: 1 is Poisson's, more comes in bursts


def trace_of(lines: Iterable[str], file: str, draw: Draw) -> tuple[Request, ...]:
    """The requests of a file of any of the formats. Raises BadRow."""
    rest = iter(lines)
    first = next(rest, "").lstrip("\ufeff")
    whole = chain([first], rest)
    if first.lstrip().startswith("{"):
        found = list(_mooncake(whole, file))
    else:
        rows = csv.reader(whole)
        columns = tuple(cell.strip() for cell in next(rows, []))
        if columns[:2] == RATES:
            found = _drawn(rows, file, draw)
        elif columns == OURS:
            found = list(_ours(rows, file))
        elif columns == AZURE:
            found = list(_azure(rows, file))
        else:
            told = "; ".join(",".join(each) for each in (OURS, AZURE, RATES))
            raise BadRow(file, 1, "columns", f"none of {told}; nor is it JSON lines with timestamp")
    if not found:
        raise BadRow(file, 1, "rows", "it holds no request")
    found.sort()
    began_s = found[0].at_s
    return tuple(request._replace(at_s=request.at_s - began_s) for request in found)


def stretch_of(requests: Sequence[Request], *, from_s: float, for_s: float) -> tuple[Request, ...]:
    """The requests of a stretch of a trace, as a trace of its own that begins with the stretch."""
    return tuple(
        request._replace(at_s=request.at_s - from_s)
        for request in requests
        if from_s <= request.at_s < from_s + for_s
    )


def _ours(rows: Iterable[Sequence[str]], file: str) -> Iterator[Request]:
    for line, cells in _rows(rows, file, len(OURS)):
        at_s = _number(file, line, "at_s", cells[0])
        tokens = [
            _whole(file, line, name, cell or "0") for name, cell in zip(OURS[1:], cells[1:], strict=True)
        ]
        yield Request(at_s, *tokens)


def _azure(rows: Iterable[Sequence[str]], file: str) -> Iterator[Request]:
    for line, cells in _rows(rows, file, len(AZURE)):
        whole, _, part = cells[0].partition(".")
        try:
            at_s = datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{part or 0}")
        except ValueError:
            raise BadRow(file, line, AZURE[0], f"{cells[0]!r} is no instant") from None
        yield Request(at_s, _whole(file, line, AZURE[1], cells[1]), _whole(file, line, AZURE[2], cells[2]))


def _mooncake(lines: Iterable[str], file: str) -> Iterator[Request]:
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as wrong:
            raise BadRow(file, line, "line", f"it is not JSON: {wrong}") from None
        if not isinstance(row, dict):
            raise BadRow(file, line, "line", "it is not an object")
        amounts = []
        for field in ("timestamp", "input_length", "output_length"):
            value = row.get(field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise BadRow(file, line, field, f"{value!r} is not a number from 0")
            amounts.append(value)
        yield Request(amounts[0] / 1000, int(amounts[1]), int(amounts[2]))


def _drawn(rows: Iterable[Sequence[str]], file: str, draw: Draw) -> list[Request]:
    """Requests at rates: a renewal process runs in the time in which one comes a second, and is mapped back."""
    began_s: list[float] = []
    rates: list[float] = []
    for line, cells in _rows(rows, file, len(RATES)):
        at_s = _number(file, line, "t_s", cells[0])
        if began_s and at_s <= began_s[-1]:
            raise BadRow(file, line, "t_s", f"{cells[0]} is not later than {began_s[-1]:g}")
        began_s.append(at_s)
        rates.append(_number(file, line, "requests_per_s", cells[1]) * draw.share)
    if len(began_s) < 2:
        raise BadRow(file, 1, "rows", "two stretches at least tell how long one is")
    edges_s = np.append(began_s, 2 * began_s[-1] - began_s[-2])
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(rates) * np.diff(edges_s))])
    count = math.ceil(sums[-1] + 10 * draw.gap_variation * math.sqrt(sums[-1]) + 10)
    if count > REQUESTS_MOST:
        raise BadRow(
            file,
            1,
            "requests_per_s",
            f"about {count:,} requests are more than {REQUESTS_MOST:,}; take a share",
        )
    shape = 1 / draw.gap_variation**2
    reached = np.cumsum(draw.rng.gamma(shape, 1 / shape, count))
    times_s = np.interp(reached[reached < sums[-1]], sums, edges_s)  # over a rate of 0 it jumps
    return [Request(float(at_s), 0, 0) for at_s in times_s]


def _rows(rows: Iterable[Sequence[str]], file: str, columns: int) -> Iterator[tuple[int, Sequence[str]]]:
    for line, cells in enumerate(rows, start=2):
        if not cells:
            continue
        if len(cells) < columns:
            raise BadRow(file, line, "row", f"{len(cells)} cells of {columns}")
        yield line, [cell.strip() for cell in cells]


def _number(file: str, line: int, field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadRow(file, line, field, f"{text!r} is not a number") from None
    if not 0 <= value < math.inf:
        raise BadRow(file, line, field, f"{text} is not a number from 0")
    return value


def _whole(file: str, line: int, field: str, text: str) -> int:
    value = _number(file, line, field, text)
    if value != int(value):
        raise BadRow(file, line, field, f"{text} is not a whole number")
    return int(value)
