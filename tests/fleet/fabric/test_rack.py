"""What runs in a rack may draw together is the derated breaker less what is drawn without them."""

from decimal import Decimal

import pytest

from baseai.fleet.fabric.rack import Rack, checked
from baseai.ground.fault import Refused
from baseai.ground.identity import SiteId


def rack(breaker_watts: int, derating: str = "0.8", base_watts: int = 0) -> Rack:
    return Rack(
        rack_id="r", site=SiteId("SP4"), breaker_watts=breaker_watts, derating=Decimal(derating), base_watts=base_watts
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "load_watts"),
    [
        pytest.param(rack(22_000), 17_600, id="four fifths of the breaker"),
        pytest.param(rack(22_000, "1"), 22_000, id="all of it, where it may be"),
        pytest.param(rack(22_000, "0.8", 2_000), 15_600, id="less what stands beside the runs"),
        pytest.param(rack(999), 799, id="whole watts, rounded down"),
    ],
)
def test_load(one: Rack, load_watts: int) -> None:
    assert checked(one).load_watts == load_watts


@pytest.mark.parametrize(
    ("one", "said"),
    [
        pytest.param(rack(0), "a breaker of 0 W is none", id="no breaker"),
        pytest.param(rack(22_000, "1.2"), "derating 1.2 is not above 0", id="more than the breaker"),
        pytest.param(rack(22_000, "0"), "derating 0 is not", id="nothing of it"),
        pytest.param(rack(22_000, "0.8", -1), "below 0", id="a draw below nothing"),
        pytest.param(rack(1_000, "0.8", 900), "give it a larger breaker", id="nothing is left for runs"),
        pytest.param(rack(10**9), "at most 10000000", id="a slip of the pen"),
    ],
)
def test_a_rack_that_cannot_be_is_refused_with_what_to_change(one: Rack, said: str) -> None:
    with pytest.raises(Refused, match=said):
        checked(one)
