"""What will stay unused, against a recount from the words of the definition."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.policy import potential as parts
from baseai.scheduling.policy.mix import Mix, learned_of
from baseai.scheduling.policy.potential import Potential
from baseai.scheduling.policy.scarcity import Kinds, of_kinds, of_wholes
from tests.scheduling.halls import hall
from tests.scheduling.test_hall import halls, shapes

mixes = st.lists(shapes, min_size=1, max_size=8)


def learned_mix(asked: list[Shape]) -> Mix:
    one = Mix()
    for number, shape in enumerate(asked):
        one.count(Gang(run_id=str(number), number=number, shape=shape))
    return one


def recounted(one: Hall, row: int, asked: list[Shape], of: Hall) -> float:
    """What the next arrival could not use of this row, by the words of the definition; `of` is what was learned on."""
    learned, kinds = learned_mix(asked).learned(), Kinds(of)
    allowed = kinds.allowed(of, learned)
    weights = learned.frequency + parts.WHOLES * of_wholes(of, kinds, learned, allowed)
    free = [int(milli) for milli in one.free[row] if milli > 0]
    usable = 0.0
    for shape, weight, may in zip(learned.shapes, weights, allowed[:, kinds.of_row[row]], strict=True):
        if not may or shape.cpu_milli > one.cpu_milli[row] or shape.memory_mib > one.memory_mib[row]:
            continue
        if shape.milli > WHOLE:
            whole = free.count(WHOLE)
            usable += weight * (WHOLE * whole if whole >= shape.devices else 0)
        elif shape.milli:
            usable += weight * sum(milli for milli in free if milli >= shape.milli)
    return sum(free) - usable


@settings(max_examples=150, deadline=None)
@given(one=halls(), asked=mixes)
def test_without_what_is_stranded_it_is_what_the_next_arrival_cannot_use(
    one: Hall, asked: list[Shape]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "STRANDED", 0.0)
        found = Potential(one, Kinds(one), learned_mix(asked).learned()).of(one, np.arange(len(one)))
    assert found == pytest.approx([recounted(one, row, asked, one) for row in range(len(one))])


@settings(max_examples=150, deadline=None)
@given(one=halls(), asked=mixes, shape=shapes)
def test_after_is_what_it_will_be_and_no_accelerator_would_be_better(
    one: Hall, asked: list[Shape], shape: Shape
) -> None:
    alone = Shape(
        milli=shape.milli, cpu_milli=shape.cpu_milli, memory_mib=shape.memory_mib, models=shape.models
    )
    rows = np.flatnonzero(one.fits(alone))
    assume(len(rows))
    learned, kinds = learned_mix(asked).learned(), Kinds(one)
    potential = Potential(one, kinds, learned)
    scarce = of_kinds(one, kinds, learned, kinds.allowed(one, learned))
    toll = parts.KIND_TOLL * (scarce.per_milli * alone.milli + scarce.per_cpu_milli * alone.cpu_milli)
    after, device = potential.after(one, alone, rows)
    for place, row in enumerate(rows.tolist()):
        if 0 < alone.milli < WHOLE:
            ways = [(each,) for each, milli in enumerate(one.free[row]) if milli >= alone.milli]
            assert (int(device[place]),) in ways
        else:
            ways = [one.devices_for(row, alone)]
        found = []
        for way in ways:
            there = one.copy()
            there.place("g", alone, [Spot(row, way)])
            found.append(float(potential.of(there, np.array([row]))[0] + toll[kinds.of_row[row]]))
        assert after[place] == pytest.approx(min(found))
        if 0 < alone.milli < WHOLE:
            assert found[ways.index((int(device[place]),))] == pytest.approx(min(found))


def test_what_is_stranded_is_what_is_left_when_cpu_ends() -> None:
    one = hall(8, cpu_milli=20_000)
    learned = learned_of({Shape(milli=1000, cpu_milli=10_000): 1.0})
    with_cpu = Potential(one, Kinds(one), learned).of(one, np.array([0]))[0]
    assert with_cpu == pytest.approx(parts.STRANDED * 6000)  # two of eight will be used


@pytest.mark.parametrize("left", [0, 1, 190, 500, 530, 1000])
def test_too_many_sizes_are_rounded_up_and_hardly_matter(left: int) -> None:
    one = hall(1)
    if left < WHOLE:
        one.place("g", Shape(milli=WHOLE - left), [Spot(0, (0,))])
    learned = learned_of({Shape(milli=milli): 1.0 for milli in range(1, WHOLE + 1)})
    found = Potential(one, Kinds(one), learned).of(one, np.array([0]))[0]
    exact = left - left * left / WHOLE  # of all sizes, so many thousandths are no larger
    assert exact <= found + 1e-9
    assert found <= exact + left * WHOLE / parts.SIZES_MOST / WHOLE
