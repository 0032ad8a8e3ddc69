"""When to checkpoint: an interval chosen from what saving costs and how often things break.

Invariant: the share of time spent on saving stays at or below OVERHEAD_RATIO, whatever Young's formula wishes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

OVERHEAD_RATIO = 0.035
PRIOR_MTBF_S = 600.0  # before anything broke we expect a kill within ten minutes, so that little is repeated
FIRST_AFTER_S = 4.0
SHORTEST_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one save cost the run."""

    stall_s: float  # the step loop stood still
    stolen_cpu_s: float  # the writer's CPU time, taken from workers that use every core


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What was asked for: exactly one of the three, or none for never."""

    auto: bool = False
    steps: int | None = None
    seconds: float | None = None

    @property
    def never(self) -> bool:
        return not self.auto and self.steps is None and self.seconds is None


def rule_of(checkpoint_every: str | Mapping[str, float]) -> Rule:
    """The rule behind "auto", "never", {"steps": n} or {"seconds": n}. Raises ValueError on anything else."""
    if checkpoint_every == "auto":
        return Rule(auto=True)
    if checkpoint_every == "never":
        return Rule()
    if isinstance(checkpoint_every, Mapping) and len(checkpoint_every) == 1:
        ((unit, amount),) = checkpoint_every.items()
        if unit == "steps" and amount >= 1:
            return Rule(steps=int(amount))
        if unit == "seconds" and amount > 0:
            return Rule(seconds=float(amount))
    raise ValueError(
        f'checkpoint_every {checkpoint_every!r} is not "auto", "never", a number of steps or of seconds'
    )


def interval_s(costs: Sequence[Cost], *, failures: int, elapsed_s: float) -> float:
    """Seconds from one save to the next.

    Young's sqrt(2 x MTBF x cost) with the MTBF seen so far (one failure per PRIOR_MTBF_S is assumed beforehand),
    lengthened where that would cost more than OVERHEAD_RATIO. The newest five saves count, by their median.
    """
    if not costs:
        return FIRST_AFTER_S
    cost_s = median(cost.stall_s + cost.stolen_cpu_s for cost in costs[-5:])
    mtbf_s = (PRIOR_MTBF_S + elapsed_s) / (failures + 1)
    young_s = math.sqrt(2 * mtbf_s * cost_s)
    return max(young_s, cost_s / OVERHEAD_RATIO, SHORTEST_S)
