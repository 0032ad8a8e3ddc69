"""How scarce what is free is, on halls small enough to count."""

import numpy as np
import pytest

from baseai.scheduling.gang import Shape
from baseai.scheduling.hall import Hall, Spot
from baseai.scheduling.policy.mix import learned_of
from baseai.scheduling.policy.scarcity import SCARCITY_MOST, Kinds, of_kinds, of_wholes
from tests.scheduling.halls import bay, hall

ANY = Shape(milli=1000)
ONLY_A = Shape(milli=1000, models=("A",))
A_OR_B = Shape(milli=1000, models=("A", "B"))


def scarcity(weights: dict[Shape, float], *models: str) -> dict[str, float]:
    """Of each model, where every model named has one node with two accelerators, as often as it is named."""
    one = Hall([bay(f"n{number}", 2, model=model) for number, model in enumerate(models)])
    kinds, learned = Kinds(one), learned_of(weights)
    found = of_kinds(one, kinds, learned, kinds.allowed(one, learned)).per_milli
    return {one.models[one.model[row]]: round(float(found[kinds.of_row[row]]), 6) for row in range(len(one))}


@pytest.mark.parametrize(
    ("weights", "models", "expected"),
    [
        pytest.param({ANY: 1}, "AB", {"A": 0, "B": 0}, id="who may be anywhere makes nothing scarce"),
        pytest.param({ANY: 3, ONLY_A: 1}, "AB", {"A": 0.5, "B": 0}, id="a quarter of all is half of A"),
        pytest.param({ONLY_A: 1}, "ABBB", {"A": SCARCITY_MOST, "B": 0}, id="more need than room"),
        pytest.param({ANY: 1, A_OR_B: 1}, "ABCC", {"A": 1, "B": 1, "C": 0}, id="a choice spreads"),
        pytest.param(
            {ANY: 5, ONLY_A: 1, A_OR_B: 2},
            "ABCC",
            {"A": 5 / 6, "B": 2 / 3, "C": 0},
            id="who has a choice makes way for who has none",
        ),
        pytest.param({Shape(): 1}, "AB", {"A": 0, "B": 0}, id="nothing asked of accelerators"),
    ],
)
def test_kinds(weights: dict[Shape, float], models: str, expected: dict[str, float]) -> None:
    assert scarcity(weights, *models) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("cpu_milli", "expected"),
    [
        pytest.param(0, (1.0, 0.0), id="no CPU asked for"),
        pytest.param(1_000, (1.0, 0.0), id="accelerators end first"),
        pytest.param(10_000, (0.5, 0.5), id="both at once"),
        pytest.param(100_000, (0.0, 1.0), id="CPU ends first"),
    ],
)
def test_what_is_scarce_is_what_ends_first(cpu_milli: int, expected: tuple[float, float]) -> None:
    """Ten thousandths of a core stand beside each thousandth of an accelerator; half the volume may be on A alone."""
    one = Hall([bay(name, 2, model=name, cpu_milli=20_000) for name in "AB"])
    kinds, learned = (
        Kinds(one),
        learned_of({ANY: 1.0, Shape(milli=1000, cpu_milli=cpu_milli, models=("A",)): 1.0}),
    )
    found = of_kinds(one, kinds, learned, kinds.allowed(one, learned))
    on_cpu = (
        found.per_cpu_milli[0] * cpu_milli / 1000
    )  # what a pod pays for CPU, over what it takes of accelerators
    parts = np.array([found.per_milli[0], on_cpu])
    assert parts / parts.sum() == pytest.approx(expected, abs=0.01)
    assert (found.per_milli[1], found.per_cpu_milli[1]) == (0, 0)


def test_sites_and_countries_make_kinds_as_models_do() -> None:
    one = Hall(
        [
            bay("a", site="s1", country="BR"),
            bay("b", site="s2", country="BR"),
            bay("c", site="s1", country="BR"),
        ]
    )
    kinds, learned = (
        Kinds(one),
        learned_of({Shape(milli=1000, sites=("s2",)): 1.0, Shape(milli=1000, residency=("BR",)): 1.0}),
    )
    assert kinds.count == 2
    assert kinds.allowed(one, learned).tolist() == [[False, True], [True, True]]


def wholes(one: Hall, weights: dict[Shape, float]) -> list[float]:
    kinds, learned = Kinds(one), learned_of(weights)
    return np.round(of_wholes(one, kinds, learned, kinds.allowed(one, learned)), 6).tolist()


def test_room_for_whole_nodes_grows_scarce_as_nodes_are_broken() -> None:
    one, eight = hall(8, 8, 8, 8), Shape(milli=8000)
    weights = {ANY: 88.0, eight: 1.0}  # a twelfth of the volume
    seen = [wholes(one, weights)[1]]
    for row in range(4):
        one.place(f"g{row}", ANY, [Spot(row, (0,))])
        seen.append(wholes(one, weights)[1])
    assert seen[0] < 0.02
    assert seen == sorted(seen)
    assert seen[4] == 1.0


def test_need_of_the_largest_is_need_of_all_that_ask_for_less() -> None:
    one, small, large = hall(8, 8), Shape(milli=4000), Shape(milli=8000)
    together = sum(wholes(one, {small: 2.0, large: 1.0}))
    assert wholes(one, {ANY: 1.0, small: 0.0}) == [0, 0]
    assert 1.0 < together <= 2.0  # either alone is all there is need of


def test_who_is_turned_away_for_ever_does_not_fill_the_hall() -> None:
    """The only A is full: the rest of the hall will be filled by the others, of whom twice as many will come."""
    one = Hall([bay("a", 1, model="A"), bay("b", 8, model="B"), bay("c", 8, model="B")])
    two = Shape(milli=2000)
    open_, full = {ANY: 10.0, two: 1.0, ONLY_A: 1.0}, {ANY: 10.0, two: 1.0, ONLY_A: 12.0}
    one.place("g", ONLY_A, [Spot(0, (0,))])
    assert wholes(one, full)[1] == pytest.approx(wholes(one, open_)[1])
