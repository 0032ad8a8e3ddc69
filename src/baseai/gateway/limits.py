"""Limits are how much a caller may ask for: those of its key, and those that the service's terms set.

Invariant: a request is counted in all of its buckets or in none. A request counts when it is admitted; its tokens are
held by estimate and counted by what was really taken, so that a caller may run into debt once and then waits for it.
The buckets lie in `buckets`, the arithmetic in `allowance`; here is which ones there are and what is said of them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from baseai.gateway.allowance import SECOND_NS, Allowance
from baseai.gateway.buckets import Bucket, Buckets, Standing, name_of
from baseai.gateway.seams import Admitted, Caller, Headers, Limited
from baseai.serving.route import Route
from baseai.workloads.service import RateLimit

MINUTE_NS = 60 * SECOND_NS
PLANS_MOST = 10_000
NOT_LIMITED: Headers = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of one caller or service."""

    bucket: Bucket
    whose: str  # `this key`, `this service`

    @property
    def counts(self) -> str:
        return "tokens" if self.bucket.holds else "requests"


@dataclass(frozen=True, slots=True)
class Plan:
    """Every limit of a caller at a service, for as long as both have the same terms."""

    caller: Caller | None
    rate_limits: tuple[RateLimit, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """What `settle` needs to find its way back."""

    asked: tuple[tuple[Bucket, int], ...]
    at_ns: int


class SharedLimits:
    """How much callers may ask for, over all gateway processes of one machine, which share `folder`.

    clock_ns: one that is the same for all of them; what the path has is its own process's.
    """

    def __init__(self, folder: Path, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._buckets = Buckets(folder)
        self._clock_ns = clock_ns
        self._plans: dict[tuple[str | None, str], Plan] = {}

    def close(self) -> None:
        self._buckets.close()

    def admit(self, caller: Caller | None, route: Route, *, tokens: int, now_s: float) -> Admitted | Limited:
        """Count one request of about `tokens` or refuse it. `now_s` is not looked at."""
        plan = self._plan(caller, route)
        if not plan.rules:
            return Admitted(headers=NOT_LIMITED, tokens=tokens)
        now_ns = self._clock_ns()
        asked = tuple((rule.bucket, tokens if rule.bucket.holds else 1) for rule in plan.rules)
        standings = self._buckets.take(asked, now_ns=now_ns)
        headers = headers_of(standings)
        longest = max(range(len(standings)), key=lambda each: standings[each].wait_ns)
        wait_s = standings[longest].wait_ns / SECOND_NS
        if wait_s > 0:
            return Limited(
                retry_after_s=wait_s, headers=headers, sentence=sentence_of(plan.rules[longest], wait_s)
            )
        return Admitted(headers=headers, tokens=tokens, buckets=(Counted(asked, now_ns),))

    def settle(self, admitted: Admitted, *, tokens: int | None, now_s: float) -> None:
        """Put what it really took in the place of what was counted beforehand."""
        for counted in admitted.buckets:
            assert isinstance(counted, Counted)
            self._buckets.settle(counted.asked, tokens, at_ns=counted.at_ns, now_ns=self._clock_ns())

    def _plan(self, caller: Caller | None, route: Route) -> Plan:
        key = (caller.key_id if caller is not None else None, route.service_id)
        rate_limits = route.terms.rate_limits
        plan = self._plans.get(key)
        if plan is None or plan.rate_limits != rate_limits or plan.caller != caller:
            if len(self._plans) >= PLANS_MOST:
                self._plans.clear()
            plan = self._plans[key] = Plan(caller, rate_limits, rules_of(caller, route))
        return plan


def rules_of(caller: Caller | None, route: Route) -> tuple[Rule, ...]:
    """Every limit of a caller at a service. Who calls without a key shares one with all who do."""
    rules = []
    if caller is not None:
        for amount, holds in ((caller.requests_per_minute, False), (caller.tokens_per_minute, True)):
            if amount is not None:
                name = name_of("key", caller.key_id, holds, amount)
                rules.append(Rule(Bucket(name, Allowance(amount, MINUTE_NS), holds), "this key"))
    for limit in route.terms.rate_limits:
        asker = "" if limit.per == "service" else caller.key_id if caller is not None else "-"
        whose = "this service" if limit.per == "service" else "a key of this service"
        for amount, holds in ((limit.requests, False), (limit.tokens, True)):
            if amount is not None:
                name = name_of("service", route.service_id, asker, holds, amount, limit.every_s)
                allowance = Allowance(amount, int(limit.every_s * SECOND_NS))
                rules.append(Rule(Bucket(name, allowance, holds), whose))
    return tuple(rules)


def headers_of(standings: list[Standing]) -> Headers:
    """x-ratelimit-* of the limit on requests that is nearest, and of that on tokens."""
    headers: list[tuple[bytes, bytes]] = []
    for noun, holds in ((b"requests", False), (b"tokens", True)):
        ours = [one for one in standings if one.bucket.holds is holds]
        if not ours:
            continue
        nearest = (
            ours[0]
            if len(ours) == 1
            else max(ours, key=lambda one: one.level_ns / one.bucket.allowance.every_ns)
        )
        allowance, level_ns = nearest.bucket.allowance, nearest.level_ns
        headers += (
            (b"x-ratelimit-limit-" + noun, b"%d" % allowance.amount),
            (b"x-ratelimit-remaining-" + noun, b"%d" % allowance.left(level_ns)),
            (b"x-ratelimit-reset-" + noun, duration_text(level_ns)),
        )
    return tuple(headers)


def duration_text(span_ns: int) -> bytes:
    """As clients of the customary headers read it: `12ms`, `1.5s`, `6m0s`. Rounded up to whole milliseconds."""
    millis = -(-span_ns // 1_000_000)
    if millis < 1000:
        return b"%dms" % millis
    minutes, millis = divmod(millis, 60_000)
    seconds = (b"%d.%03d" % divmod(millis, 1000)).rstrip(b"0").rstrip(b".")
    return b"%dm%ss" % (minutes, seconds) if minutes else seconds + b"s"


def sentence_of(rule: Rule, wait_s: float) -> str:
    """Which limit, how much it is, and when to come back."""
    allowance = rule.bucket.allowance
    return (
        f"{rule.whose} may take {allowance.amount} {rule.counts} in {allowance.every_ns / SECOND_NS:g} s;"
        f" try again in {max(wait_s, 0.001):.3g} s"
    )
