"""Where a node key may travel, and what the faults of the link keep."""

import pickle

import pytest

from baseai.agent.link import KeyRevoked, ServerAway, ServerRefused, TokenUsed, checked_url
from baseai.ground.fault import Fault, Refused


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:8000", "http://localhost:1/", "http://[::1]:1", "https://a.example"]
)
def test_a_key_may_travel_over_tls_or_within_this_machine(url: str) -> None:
    assert checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["http://a.example", "http://192.0.2.1:80", "ftp://a.example", "a.example", ""]
)
def test_a_key_never_travels_in_the_clear(url: str) -> None:
    with pytest.raises(Refused):
        checked_url(url)


@pytest.mark.parametrize(
    "fault", [ServerAway("u", "w"), KeyRevoked("u"), TokenUsed("u", "d"), ServerRefused("u", 404, "d")]
)
def test_a_fault_survives_pickling(fault: Fault) -> None:
    assert str(pickle.loads(pickle.dumps(fault))) == str(fault)
