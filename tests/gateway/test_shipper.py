"""The shipper: each segment is taken in once, in order, late where the database is away, by another where one died."""

from pathlib import Path

import pytest

from baseai.gateway.journal import Journal, gateways_in
from baseai.gateway.shipper import Shipper
from baseai.serving.demand import DemandSecond
from tests.gateway.counted import NOON_S, MemoryQuay, NoDemand, names_in, told

pytestmark = pytest.mark.anyio


class Ship:
    """One gateway's shipper, whose clock the test turns."""

    def __init__(
        self, folder: Path, quay: MemoryQuay, gateway: str = "gw_1", demand: NoDemand | None = None
    ) -> None:
        self.journal = Journal(folder, gateway)
        self.shipper = Shipper(self.journal, demand or NoDemand(), quay)
        self.wall_s = NOON_S

    async def seconds(self, count: float) -> None:
        self.wall_s += count
        await self.shipper.tick(now_s=self.wall_s, wall_s=self.wall_s)


def requests_of(quay: MemoryQuay) -> tuple[int, int]:
    """As traffic and as usage have them."""
    return sum(one.requests for one in quay.stretches), sum(one.requests for one in quay.uses)


async def test_traffic_goes_each_ten_seconds_and_usage_each_minute(tmp_path: Path) -> None:
    quay = MemoryQuay()
    ship = Ship(tmp_path, quay)
    await ship.seconds(1)
    ship.journal.ended(told())
    await ship.seconds(5)
    assert requests_of(quay) == (0, 0)
    await ship.seconds(5)
    assert requests_of(quay) == (1, 0)
    ship.journal.ended(told())
    await ship.seconds(10)
    await ship.seconds(40)
    assert requests_of(quay) == (2, 2)
    assert quay.groups == [("gw_1", 1, 2)]
    assert names_in(tmp_path) == ["gw_1.0000000003.lines", "gw_1.lock"]


async def test_what_the_database_could_not_take_is_taken_later_and_once(tmp_path: Path) -> None:
    quay = MemoryQuay()
    ship = Ship(tmp_path, quay)
    quay.away = True
    for _ in range(30):
        ship.journal.ended(told())
        await ship.seconds(10)
    assert requests_of(quay) == (0, 0)
    quay.away = False
    await ship.seconds(10)
    await ship.seconds(60)
    assert requests_of(quay) == (30, 30)
    await ship.shipper.close()
    assert names_in(tmp_path) == []


async def test_lines_do_not_pile_up_while_the_database_is_away(tmp_path: Path) -> None:
    class Always(NoDemand):
        def taken(self, *, now_s: float, wall_s: float) -> list[tuple[str, DemandSecond]]:
            return [("svc_1", DemandSecond(at_s=wall_s, concurrency=1.0, held=0, arrivals=1))]

    quay = MemoryQuay()
    quay.away = True
    ship = Ship(tmp_path, quay, demand=Always())
    for _ in range(3):
        for _ in range(100):
            ship.journal.ended(told())
        await ship.seconds(10)
    assert len(names_in(tmp_path, ".sums")) == 3
    assert [(tmp_path / name).stat().st_size for name in names_in(tmp_path, ".lines")] == [0]


async def test_closing_ships_what_is_left(tmp_path: Path) -> None:
    quay = MemoryQuay()
    ship = Ship(tmp_path, quay)
    ship.journal.ended(told())
    await ship.shipper.close()
    assert requests_of(quay) == (1, 1)


async def test_what_one_left_is_shipped_by_another(tmp_path: Path) -> None:
    away, quay = MemoryQuay(), MemoryQuay()
    away.away = True
    dead = Ship(tmp_path, away, "gw_dead")
    dead.journal.ended(told())
    await dead.seconds(10)
    dead.journal.ended(told())
    await dead.shipper.close()
    assert gateways_in(tmp_path) == ["gw_dead"]
    heir = Ship(tmp_path, quay, "gw_heir")
    await heir.seconds(1)
    assert requests_of(quay) == (2, 2)
    assert gateways_in(tmp_path) == ["gw_heir"]
    assert not (tmp_path / "gw_dead.lock").exists()


async def test_a_segment_that_was_taken_in_by_one_that_died_right_after_is_not_taken_in_again(
    tmp_path: Path,
) -> None:
    quay = MemoryQuay()
    dead = Ship(tmp_path, quay, "gw_dead")
    dead.journal.ended(told())
    dead.journal.turn()
    segment = tmp_path / "gw_dead.0000000001.sums"
    content = segment.read_bytes()
    await dead.shipper.close()
    segment.write_bytes(content)
    heir = Ship(tmp_path, quay, "gw_heir")
    await heir.seconds(1)
    assert requests_of(quay) == (1, 1)
    assert gateways_in(tmp_path) == ["gw_heir"]


async def test_a_damaged_segment_is_set_aside_and_holds_up_nothing(tmp_path: Path) -> None:
    quay = MemoryQuay()
    ship = Ship(tmp_path, quay)
    ship.journal.ended(told())
    ship.journal.turn()
    (tmp_path / "gw_1.0000000001.sums").write_bytes(b"{")
    ship.journal.ended(told())
    await ship.seconds(10)
    assert requests_of(quay) == (1, 1)
    assert names_in(tmp_path / "refused") == ["gw_1.0000000001.sums"]


async def test_demand_goes_each_second(tmp_path: Path) -> None:
    second = ("svc_1", DemandSecond(at_s=NOON_S, concurrency=2.5, held=1, arrivals=7))

    class Asked(NoDemand):
        def taken(self, *, now_s: float, wall_s: float) -> list[tuple[str, DemandSecond]]:
            return [second]

    quay = MemoryQuay()
    ship = Ship(tmp_path, quay, demand=Asked())
    await ship.seconds(1)
    assert quay.seconds == [second]
