"""Claims of one turn: all that are to be kept clear of, each with what is left beside all others when it begins.

Invariant: at every instant all that stand together fit, with what runs then; so whoever fits into what each of those
leaves that begin while he is there, is in nobody's way. Changed by the house alone, which puts a claim there after it
has looked whether it fits, and withdraws one while it looks for a better.
"""

from collections.abc import Iterable, Iterator, Sequence

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall
from baseai.scheduling.outlook import Free, give, take
from baseai.scheduling.policy.claim import Claim, beside


class Claims:
    """See the head of this file."""

    def __init__(
        self, hall: Hall, calendar: Iterable[Claim] = (), runs: Sequence[tuple[Gang, Claim]] = ()
    ) -> None:
        """calendar: each knows those before it, and none of the runs'. runs: each knows all others."""
        self._hall = hall
        self._all = list(calendar)
        for gang, own in runs:
            self._take(own, gang)
        self._all += [own for _, own in runs]

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._all)

    def of_runs(self) -> list[Claim]:
        return [claim for claim in self._all if claim.kind == "run"]

    def put(self, own: Claim, gang: Gang) -> None:
        """It stands from now on; `left` of it is known."""
        self._take(own, gang)
        self._all.append(own)

    def withdraw(self, own: Claim, gang: Gang) -> None:
        self._all.remove(own)
        for claim in self._within(own, gang):
            assert own.shape is not None
            give(own.shape, own.rows, claim.left, self._hall)

    def beside(self, gang: Gang, at_s: float, until_s: float, free: Free) -> list[Free]:
        """Take off `free`, which is of `at_s`, what the gang must keep clear of then.

        What is left at the beginnings of others while it is there, until `until_s`, comes back: it must fit there too.
        """
        concerning = [claim for claim in self._all if claim.concerns(gang, at_s)]
        beside(concerning, at_s, free, self._hall)
        for claim in concerning:  # nodes come back through their tests: when, nobody can promise
            if claim.kind == "maintenance" and claim.from_s <= at_s:
                free.open[claim.rows] = False
        return [claim.left for claim in concerning if at_s < claim.from_s < until_s]

    def outlived(self, gang: Gang, now_s: float, until_s: float) -> list[Claim]:
        """Those that begin before the gang would end, and concern it."""
        return [
            claim
            for claim in self._all
            if until_s > claim.from_s and now_s < claim.until_s and claim.concerns(gang, now_s)
        ]

    def _take(self, own: Claim, gang: Gang) -> None:
        for claim in self._within(own, gang):
            assert own.shape is not None
            take(own.shape, own.rows, claim.left, self._hall)

    def _within(self, own: Claim, gang: Gang) -> list[Claim]:
        """Those that begin while it stands, of which sums say enough."""
        return [
            claim
            for claim in self._all
            if claim.then is None and own.stands_at(claim.from_s) and claim.concerns(gang, own.from_s)
        ]
