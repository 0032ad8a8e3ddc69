"""Limits: those of the key and those of the service, all or none, with the customary headers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from baseai.gateway.limits import SharedLimits, duration_text
from baseai.gateway.seams import Admitted, Caller, Limited
from baseai.serving.route import Route, RoutedVersion
from baseai.workloads.service import RateLimit, Service

SERVICE = Service(engine="chat", model="m", model_name="chat", protocol="openai")
ANA = Caller(key_id="key_ana", tenant_id="ten_a", project_id=None)
BOB = replace(ANA, key_id="key_bob")


class Bench:
    """Limits whose clock the test turns."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = 10**15
        self.limits = SharedLimits(folder, lambda: self.now_ns)

    def ask(
        self, caller: Caller | None, *rate_limits: RateLimit, tokens: int = 0, service_id: str = "svc_1"
    ) -> Admitted | Limited:
        return self.limits.admit(caller, route(*rate_limits, service_id=service_id), tokens=tokens, now_s=0.0)

    def settle(self, admitted: Admitted | Limited, tokens: int | None) -> None:
        assert isinstance(admitted, Admitted)
        self.limits.settle(admitted, tokens=tokens, now_s=0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.limits.close()


def route(*rate_limits: RateLimit, service_id: str = "svc_1") -> Route:
    terms = replace(SERVICE, rate_limits=rate_limits)
    version = RoutedVersion(version_no=1, share=1.0, digest="d", terms=terms)
    return Route(
        service_id=service_id, tenant_id="ten_a", project_id="prj_a", name="chat", state="serving", versions=(version,),
        backends=(),
    )  # fmt: skip


def per(whose: str, **said: int) -> RateLimit:
    assert whose in ("key", "service")
    return RateLimit(per="key" if whose == "key" else "service", every_s=60.0, **said)


def headers(told: Admitted | Limited) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in told.headers}


def test_who_has_no_limits_is_told_of_none(bench: Bench) -> None:
    assert bench.ask(ANA) == Admitted(headers=(), tokens=0)


def test_a_key_is_limited_over_all_services(bench: Bench) -> None:
    ana = replace(ANA, requests_per_minute=2)
    first = bench.ask(ana, service_id="svc_1")
    assert headers(first) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "30s",
    }
    assert isinstance(bench.ask(ana, service_id="svc_2"), Admitted)
    refused = bench.ask(ana, service_id="svc_3")
    assert isinstance(refused, Limited)
    assert refused.retry_after_s == 30.0
    assert refused.sentence == "this key may take 2 requests in 60 s; try again in 30 s"
    assert headers(refused)["x-ratelimit-remaining-requests"] == "0"
    assert isinstance(bench.ask(BOB, service_id="svc_1"), Admitted)


@pytest.mark.parametrize(("whose", "bob"), [("key", Admitted), ("service", Limited)])
def test_a_service_limits_each_key_or_all_together(bench: Bench, whose: str, bob: type) -> None:
    limit = per(whose, requests=1)
    assert isinstance(bench.ask(ANA, limit), Admitted)
    assert isinstance(bench.ask(ANA, limit), Limited)
    assert isinstance(bench.ask(BOB, limit), bob)
    assert isinstance(bench.ask(ANA, limit, service_id="svc_2"), Admitted)


def test_who_calls_without_a_key_shares_one_limit_with_all_who_do(bench: Bench) -> None:
    limit = per("key", requests=1)
    assert isinstance(bench.ask(None, limit), Admitted)
    assert isinstance(bench.ask(None, limit), Limited)


def test_a_request_that_one_limit_refuses_is_counted_in_none(bench: Bench) -> None:
    limits = (per("service", requests=10), per("key", tokens=5))
    assert isinstance(bench.ask(ANA, *limits, tokens=5), Admitted)
    for _ in range(20):
        assert isinstance(bench.ask(ANA, *limits, tokens=1), Limited)
    told = bench.ask(BOB, *limits, tokens=1)
    assert headers(told)["x-ratelimit-remaining-requests"] == "8"


def test_tokens_are_held_by_estimate_and_counted_by_what_was_taken(bench: Bench) -> None:
    limit = per("key", tokens=100)
    first = bench.ask(ANA, limit, tokens=80)
    assert isinstance(bench.ask(ANA, limit, tokens=30), Limited)
    bench.settle(first, 10)
    second = bench.ask(ANA, limit, tokens=30)
    assert headers(second)["x-ratelimit-remaining-tokens"] == "60"
    bench.settle(second, 250)  # more than anybody could know: let through, and waited for
    refused = bench.ask(ANA, limit, tokens=1)
    assert isinstance(refused, Limited)
    assert refused.retry_after_s == pytest.approx(60 * 161 / 100)
    bench.now_ns += int(refused.retry_after_s * 10**9) + 1
    assert isinstance(bench.ask(ANA, limit, tokens=1), Admitted)


def test_what_was_not_served_is_given_back_as_a_whole(bench: Bench) -> None:
    limits = (per("key", requests=1), per("key", tokens=10))
    for _ in range(5):
        asked = bench.ask(ANA, *limits, tokens=10)
        assert isinstance(asked, Admitted)
        bench.settle(asked, None)


def test_the_nearest_limit_is_the_one_that_is_told(bench: Bench) -> None:
    told = bench.ask(replace(ANA, requests_per_minute=1000), per("key", requests=4))
    assert headers(told)["x-ratelimit-limit-requests"] == "4"


def test_new_terms_hold_at_once(bench: Bench) -> None:
    assert isinstance(bench.ask(ANA, per("key", requests=1)), Admitted)
    assert isinstance(bench.ask(ANA, per("key", requests=1)), Limited)
    assert isinstance(bench.ask(ANA, per("key", requests=5)), Admitted)
    assert isinstance(bench.ask(ANA), Admitted)


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, b"0ms"),
        (1, b"1ms"),
        (12_000_000, b"12ms"),
        (999_999_999, b"1s"),
        (1_500_000_000, b"1.5s"),
        (59_999_000_000, b"59.999s"),
        (60_000_000_000, b"1m0s"),
        (92_050_000_000, b"1m32.05s"),
        (6 * 60_000_000_000, b"6m0s"),
    ],
)
def test_durations_are_written_as_clients_read_them(span_ns: int, text: bytes) -> None:
    assert duration_text(span_ns) == text
