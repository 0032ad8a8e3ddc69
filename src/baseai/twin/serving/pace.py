"""A pace is how long one replica takes for a request, with so many under way beside it.

Invariant: a pace is settled as a request begins and does not change while it runs: what joins later slows only itself.
That is simpler than an engine that batches anew at each token, the same for every policy that is compared, and said
wherever its figures are.
"""

import csv
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from baseai.twin.neutral import BadRow
from baseai.twin.serving.trace import Request

NEEDS = ("model", "hardware", "prompt_size", "batch_size", "prompt_time", "token_time", "tensor_parallel")


class Pace(Protocol):
    """How long a request takes."""

    def service_s(self, request: Request, under_way: int) -> float:
        """From its beginning on the replica to its end. under_way: it and those beside it, 1 at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPace:
    """Each request takes as long as the other, however many there are."""

    each_s: float

    def service_s(self, request: Request, under_way: int) -> float:
        return self.each_s


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPace:
    """A language model as it was measured: its prompt at once, then token by token.

    Between measured sizes times lie on a line; beyond the largest they go on along the last one.
    """

    prompt_sizes: tuple[float, ...]  # tokens, rising
    prompt_times_s: tuple[float, ...]
    batch_sizes: tuple[float, ...]  # rising
    token_times_s: tuple[float, ...]  # of one token of each in the batch

    def service_s(self, request: Request, under_way: int) -> float:
        prompt_s = _on_line(self.prompt_sizes, self.prompt_times_s, request.prompt_tokens)
        return prompt_s + request.answer_tokens * _on_line(self.batch_sizes, self.token_times_s, under_way)


def measured_pace_of(
    lines: Iterable[str], file: str, *, model: str, hardware: str, tensor_parallel: int
) -> MeasuredPace:
    """The pace of one model on one kind of machine, of a file like splitwise-sim's `splitwise_perf_model.csv`.

    Times in the file are ms. Medians of what was measured several times; prompts alone (batch 1), tokens at the
    prompt size that most batch sizes were measured at. Raises BadRow, also where nothing of it was measured.
    """
    reader = csv.DictReader(lines)
    missing = [name for name in NEEDS if name not in (reader.fieldnames or ())]
    if missing:
        raise BadRow(file, 1, "columns", f"{', '.join(missing)} not there")
    prompts: dict[float, list[float]] = {}
    tokens: dict[float, list[float]] = {}
    seen: set[str] = set()
    for line, row in enumerate(reader, start=2):
        seen.add(f"{row['model']} on {row['hardware']}, {row['tensor_parallel']} parallel")
        if (row["model"], row["hardware"], row["tensor_parallel"]) != (model, hardware, str(tensor_parallel)):
            continue
        try:
            prompt_size, batch = float(row["prompt_size"]), float(row["batch_size"])
            prompt_s, token_s = float(row["prompt_time"]) / 1000, float(row["token_time"]) / 1000
        except (TypeError, ValueError):
            raise BadRow(file, line, "row", "a size or a time is not a number") from None
        if batch == 1:
            prompts.setdefault(prompt_size, []).append(prompt_s)
        tokens.setdefault(batch, []).append(token_s)
    if not prompts:
        raise BadRow(
            file, 1, "model", f"{model} on {hardware}, {tensor_parallel} parallel is not among {sorted(seen)}"
        )
    return MeasuredPace(
        prompt_sizes=tuple(sorted(prompts)),
        prompt_times_s=tuple(median(prompts[size]) for size in sorted(prompts)),
        batch_sizes=tuple(sorted(tokens)),
        token_times_s=tuple(median(tokens[size]) for size in sorted(tokens)),
    )


def _on_line(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    if len(xs) == 1 or x <= xs[0]:
        return ys[0]
    right = min(bisect_right(xs, x), len(xs) - 1)
    rise = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + rise * (x - xs[right - 1])
