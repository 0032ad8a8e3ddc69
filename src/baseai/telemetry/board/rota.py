"""A rota is the asks of one poll: the fewest found that bring every property a survey wants.

Invariant: reports come before expanded resources and these before single ones; an ask whose every property comes with
another is left out. What may wait takes turns, one ask a poll. A counter keeps the one address that the rota gives it.
Equal surveys give equal rotas.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from baseai.telemetry.board.formula import Formula, pinned
from baseai.telemetry.board.resource import MISSING, Address, Ask, Seen, at
from baseai.telemetry.board.survey import Survey
from baseai.telemetry.board.unit import Unit
from baseai.telemetry.field import ACCELERATOR, NODE, Family, Kind

# What is looked at of each kind of unit. A sensor is watched where it comes along anyway.
WATCHED: Mapping[str, tuple[str, ...]] = {
    "accelerator": ("/Status/Health", "/Status/State"),
    "supply": ("/Status/Health", "/Status/State", "/LineInputStatus"),
    "fan": ("/Status/Health", "/Status/State"),
    "redundancy": ("/Status/Health", "/Status/State"),
    "thermal": ("/Status/Health",),
    "detector": ("/DetectorState", "/Status/Health", "/Status/State"),
    "sensor": (),
}
COUNTED = ("/PCIeErrors/FatalErrorCount", "/PCIeErrors/NonFatalErrorCount")  # of an accelerator's metrics

Want = tuple[Address, ...]  # any of these will do
Bringers = Mapping[Address, frozenset[Ask]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rota:
    """What to ask at each poll and what in turn; the survey with its counters' addresses settled."""

    each: tuple[Ask, ...]
    turns: tuple[Ask, ...]
    survey: Survey
    brings: Mapping[Address, Ask]  # which of these asks brings a property

    def asks(self, poll: int) -> tuple[Ask, ...]:
        """The asks of a poll, counted from 0."""
        return (*self.each, self.turns[poll % len(self.turns)]) if self.turns else self.each


def rota_of(survey: Survey, seen: Seen) -> Rota:
    """Choose from the asks that the survey was made with. O(asks² · properties) in the worst case, done once."""
    wants, slow = _wants(survey, seen)
    bringers = _bringers(seen, {address for want in (*wants, *slow) for address in want})
    each = _fewest(wants, bringers, seen)
    waiting = [want for want in slow if not _asks_for(want, bringers) & set(each)]
    turns = (*_fewest(waiting, bringers, seen), *survey.logs)
    chosen = (*each, *turns)
    brings = {
        address: next(ask for ask in chosen if ask in asks)
        for address, asks in bringers.items()
        if asks & set(chosen)
    }
    accelerators = tuple(
        replace(found, formulas=_settled(found.formulas, ACCELERATOR, brings))
        for found in survey.accelerators
    )
    settled = replace(survey, node=_settled(survey.node, NODE, brings), accelerators=accelerators)
    return Rota(each=each, turns=turns, survey=settled, brings=brings)


def watched(unit: Unit) -> tuple[Address, ...]:
    return tuple(unit.place.below(pointer) for pointer in WATCHED[unit.kind])


def _wants(survey: Survey, seen: Seen) -> tuple[list[Want], list[Want]]:
    """What each poll wants, and what may wait for its turn."""
    wants: dict[Want, None] = {}
    slow: dict[Want, None] = {}
    for formula in (*survey.node, *(formula for found in survey.accelerators for formula in found.formulas)):
        for part in formula.parts:
            (slow if formula.is_slow else wants)[tuple(spot.address for spot in part.spots)] = None
    for unit in survey.units:
        wants |= {(address,): None for address in watched(unit) if seen.raw(address) is not MISSING}
    return list(wants), list(slow)


def _bringers(seen: Seen, addresses: Iterable[Address]) -> Bringers:
    """Which asks bring a property, by quoting it or with its resource."""
    by_path: dict[str, set[Ask]] = {}
    by_quote: dict[Address, set[Ask]] = {}
    for ask, paths in seen.brought.items():
        for path in paths:
            by_path.setdefault(path, set()).add(ask)
    for ask, quoted in seen.quoted.items():
        for address in quoted:
            by_quote.setdefault(address, set()).add(ask)
    bringers = {}
    for address in addresses:
        asks = set(by_quote.get(address, ()))
        if at(seen[address.path], address.pointer) is not MISSING:
            asks |= by_path.get(address.path, set())
        bringers[address] = frozenset(asks)
    return bringers


def _asks_for(want: Want, bringers: Bringers) -> frozenset[Ask]:
    return frozenset().union(*(bringers[address] for address in want))


def _class(ask: Ask, seen: Seen) -> int:
    if ask in seen.quoted:
        return 0
    return 1 if "?" in ask else 2


def _fewest(wants: Sequence[Want], bringers: Bringers, seen: Seen) -> tuple[Ask, ...]:
    """Greedy by class, then what has become needless is dropped, the dearest class first."""
    asks_of = {want: _asks_for(want, bringers) for want in wants}
    serves: dict[Ask, set[Want]] = {}
    for want, asks in asks_of.items():
        for ask in asks:
            serves.setdefault(ask, set()).add(want)
    chosen: list[Ask] = []
    left = {want for want, asks in asks_of.items() if asks}
    for rank in (0, 1, 2):
        candidates = {ask for ask in serves if _class(ask, seen) == rank}
        while found := min(
            (ask for ask in candidates if serves[ask] & left),
            key=lambda ask: (-len(serves[ask] & left), len(seen.brought[ask]), ask),
            default=None,
        ):
            chosen.append(found)
            left -= serves[found]
    for ask in sorted(chosen, key=lambda ask: (-_class(ask, seen), len(serves[ask]), ask)):
        others = set().union(*(serves[other] for other in chosen if other != ask))
        if serves[ask] <= others:
            chosen.remove(ask)
    return tuple(chosen)


def _settled(
    formulas: Iterable[Formula], family: Family, brings: Mapping[Address, Ask]
) -> tuple[Formula, ...]:
    """Counters read at one address each, the first that is asked for."""
    settled = []
    for formula in formulas:
        if family[formula.field].kind is Kind.COUNTER:
            spots = [
                next((spot for spot in part.spots if spot.address in brings), part.spots[0])
                for part in formula.parts
            ]
            formula = pinned(formula, spots)
        settled.append(formula)
    return tuple(settled)
