"""An allowance is how much may be asked for in a stretch of time: 600 requests a minute, and all of them at once.

Invariant: in no window is more taken than the amount and what flows back within it. A bucket is one integer, the
instant at which it is full again, beside what is held for requests under way; all is reckoned in whole nanoseconds,
rounded against the asker. Pure: the instants and the state are arguments.
"""

from dataclasses import dataclass

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many in each stretch of time."""

    amount: int
    every_ns: int

    def __post_init__(self) -> None:
        if self.amount < 1 or self.every_ns < 1:
            raise ValueError(f"{self.amount} in {self.every_ns} ns is no allowance")

    def cost_ns(self, count: int) -> int:
        """How long it takes until `count` have flowed back. What is more than the amount counts as the amount.

        So a request that is larger than all there is waits until nothing else is taken, and is then let through.
        """
        return -(-min(count, self.amount) * self.every_ns // self.amount)

    def debt_ns(self, count: int) -> int:
        """The same for what was really taken, however much it is."""
        return -(-count * self.every_ns // self.amount)

    def left(self, level_ns: int) -> int:
        """How many may be asked for now."""
        return max(0, (self.every_ns - level_ns) * self.amount // self.every_ns)

    def wait_ns(self, level_ns: int, cost_ns: int) -> int:
        """How long until what costs so much fits; 0 when it fits now."""
        return max(0, level_ns + cost_ns - self.every_ns)


def level(full_at_ns: int, held_ns: int, now_ns: int) -> int:
    """How far a bucket is from full, in ns of flowing back: what was taken, and what is held and does not flow."""
    return max(0, full_at_ns - now_ns) + held_ns


def taken(full_at_ns: int, cost_ns: int, at_ns: int) -> int:
    """The new instant of fullness after something was taken at `at_ns`.

    Said late, with `at_ns` in the past, it comes to what it would have come to then, or to more if others took since.
    """
    return max(full_at_ns, at_ns) + cost_ns


def given_back(full_at_ns: int, cost_ns: int, at_ns: int, now_ns: int) -> int:
    """The same after what was taken at `at_ns` turned out to be nothing.

    What would have flowed back by now anyway is not given twice: others may have taken it meanwhile.
    """
    return full_at_ns - max(0, cost_ns - (now_ns - at_ns))
