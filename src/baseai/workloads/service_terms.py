"""The terms of a service as a tenant writes them: how many replicas, how versions change, how requests fare.

Invariant: what is wrong has been noted at its key and stands at its default. Read for `service_of` in
`service_keys.py`; the nouns are in `service.py`.
"""

import re
from typing import Any, cast, get_args

import yaml

from baseai.ground.quantity import duration_s, size_bytes
from baseai.workloads.service import (
    Balance,
    Batching,
    CacheTerms,
    Engine,
    Metric,
    Per,
    Protocol,
    RateLimit,
    Rollout,
    Scaling,
)
from baseai.workloads.sheet import Entries

DETERMINISTIC: frozenset[Engine] = frozenset({"onnx", "embeddings"})  # equal questions have equal answers
REPLICAS_MOST = 1_000
TIMEOUT_MOST_S = 3_600
BODY_MOST_BYTES = 1 << 30
RATE_LIMITS_MOST = 16

_REPLICAS = re.compile(r"^(\d{1,6})(?:\.\.(\d{1,6}))?$")


def scaling_of(top: Entries, concurrency: int) -> Scaling:
    unread = "replicas" in top  # and what depends on it is not held against a number nobody wrote
    least, most = top.parsed("replicas", _replicas) or ((0, REPLICAS_MOST) if unread else (1, 1))
    usual = max(1.0, concurrency / 4)
    own = top.mapping("scaling")
    if own is None:
        return Scaling(least=least, most=most, target=usual)
    own.only(
        (
            "metric",
            "target",
            "stable_window",
            "panic_window",
            "to_zero_after",
            "scale_down_delay",
            "warm",
        )
    )
    if least == most:
        fix = f"write a range, `replicas: {min(1, least)}..{max(4, most)}`, or leave `scaling` out"
        top.wrong("scaling", f"decides nothing where there are always {most} replicas", fix)
    metric = cast(Metric, one_of(own, "metric", get_args(Metric), "to scale by") or "concurrency")
    target = _number(own, "target", above=0.0, most=1e6)
    if metric == "requests" and target is None and "target" not in own:
        own.wrong("metric", "needs a target", "write `target: 10` for ten requests a second on each replica")
    if metric == "concurrency" and target is not None and target > concurrency:
        own.wrong(
            "target",
            f"is never reached: a replica is given at most {concurrency} requests at once",
            f"write at most {concurrency}, or a larger `concurrency`",
        )
    stable_s = float(own.parsed("stable_window", _window) or 60)
    panic_s = float(own.parsed("panic_window", _window) or min(6.0, stable_s))
    if panic_s > stable_s:
        own.wrong("panic_window", f"is longer than the stable window of {stable_s:g} s", "make it shorter")
    if "to_zero_after" in own and least > 0:
        own.wrong(
            "to_zero_after", "has no effect where a replica always stays", f"write `replicas: 0..{most}`"
        )
    warm = own.whole("warm", 0, REPLICAS_MOST) or 0
    if warm > most:
        own.wrong("warm", f"is more than the {most} replicas there may be", f"write at most {most}")
        warm = 0
    return Scaling(
        least=least,
        most=most,
        metric=metric,
        target=target or usual,
        stable_window_s=stable_s,
        panic_window_s=panic_s,
        to_zero_after_s=float(or_usual(own.parsed("to_zero_after", _delay), 30)),
        scale_down_delay_s=float(or_usual(own.parsed("scale_down_delay", _delay), 0)),
        warm=warm,
    )


def _replicas(written: str | int | float) -> tuple[int, int]:
    found = _REPLICAS.match(str(written).strip())
    if found is None:
        raise ValueError(f"`{written}` is no number of replicas; write `replicas: 2` or `replicas: 0..4`")
    least = int(found[1])
    most = least if found[2] is None else int(found[2])
    if most < 1:
        raise ValueError(f"`{written}` never has a replica; write `replicas: 0..1` for one that rests")
    if least > most:
        raise ValueError(f"`{written}` is the wrong way round; write `replicas: {most}..{least}`")
    if most > REPLICAS_MOST:
        raise ValueError(f"`{written}` is more than {REPLICAS_MOST} replicas; write fewer")
    return least, most


def rollout_of(top: Entries) -> Rollout:
    own = top.mapping("rollout")
    usual = Rollout()
    if own is None:
        return usual
    own.only(("shares", "bake", "most_error_ratio", "burn"))
    ratio = _number(own, "most_error_ratio", above=-1e-9, most=1.0)
    return Rollout(
        shares=_shares(own) or usual.shares,
        bake_s=float(or_usual(own.parsed("bake", _delay), 30)),
        most_error_ratio=or_usual(ratio, usual.most_error_ratio),
        burn=_number(own, "burn", above=0.0, most=1e6) or usual.burn,
    )


def _shares(own: Entries) -> tuple[float, ...] | None:
    lines = own.texts("shares", one=True)
    if lines is None:
        return None
    fix = "write rising shares of the requests that end with 1, `[0.1, 0.5, 1]`"
    shares: list[float] = []
    for written, item in lines:
        try:
            shares.append(float(written))
        except ValueError:
            own.sheet.wrong(item, own.at("shares"), f"`{written}` is no share", fix)
            return None
    rising = all(0 < share <= 1 for share in shares) and sorted(set(shares)) == shares
    if not shares or not rising or shares[-1] != 1:
        own.wrong("shares", "do not rise to all of the requests", fix)
        return None
    return tuple(shares)


# ---- how a request is treated


def batching_of(top: Entries) -> Batching | None:
    if "batching" not in top:
        return None
    decided = top.truth("batching")
    if decided is not None:
        return Batching() if decided else None
    own = top.mapping("batching")
    if own is None:
        return None
    own.only(("most", "wait_ms"))
    usual = Batching()
    return Batching(
        most=own.whole("most", 2, 10_000) or usual.most,
        wait_ms=or_usual(_number(own, "wait_ms", above=-1e-9, most=10_000), usual.wait_ms),
    )


def p99_ms_of(top: Entries) -> float | None:
    own = top.mapping("slo")
    if own is None:
        return None
    own.only(("p99_ms",))
    if "p99_ms" not in own:
        top.wrong("slo", "promises nothing", "write `slo: {p99_ms: 100}`, or leave it out")
    return _number(own, "p99_ms", above=0.0, most=3_600_000)


def cache_of(top: Entries, engine: Engine, protocol: Protocol) -> CacheTerms | None:
    usual = CacheTerms()
    if "cache" not in top:
        return usual if engine in DETERMINISTIC else None
    decided = top.truth("cache")
    if decided is not None:
        return usual if decided else None
    own = top.mapping("cache")
    if own is None:
        return None
    own.only(("max_age", "size", "semantic"))
    semantic = _number(own, "semantic", above=0.0, most=1.0)
    if semantic is not None and (protocol != "openai" or engine == "embeddings"):
        what = (
            "an embedding is cheaper than the look"
            if engine == "embeddings"
            else f"`{protocol}` has no texts"
        )
        own.wrong("semantic", f"compares texts that are answered alike, and {what}", "leave it out")
    size = own.parsed("size", size_bytes)
    if size == 0:
        own.wrong("size", "keeps nothing", "write `cache: false`")
    return CacheTerms(
        max_age_s=float(own.parsed("max_age", _window) or usual.max_age_s),
        most_bytes=size or usual.most_bytes,
        semantic=semantic,
    )


def rate_limits_of(top: Entries, protocol: Protocol, *, auth: bool) -> tuple[RateLimit, ...]:
    node = top.values.get("rate_limits")
    if node is None:
        return ()
    fix = "write `- {per: key, requests: 600, every: 1m}` below it"
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        top.wrong("rate_limits", "needs a list of limits", fix)
        return ()
    if len(node.value) > RATE_LIMITS_MOST:
        top.wrong("rate_limits", f"holds more than {RATE_LIMITS_MOST} limits", "keep the tightest")
    limits: list[RateLimit] = []
    for number, item in enumerate(node.value[:RATE_LIMITS_MOST]):
        path = f"rate_limits[{number}]"
        if not isinstance(item, yaml.MappingNode):
            top.sheet.wrong(item, path, "is no limit", fix)
            continue
        limit = _rate_limit(Entries(top.sheet, item, path), protocol, auth=auth)
        if limit is None:
            continue
        if any(_same(limit, other) for other in limits):
            top.sheet.wrong(
                item, path, "limits what another one limits for the same time", "keep one of them"
            )
        limits.append(limit)
    return tuple(limits)


def _rate_limit(own: Entries, protocol: Protocol, *, auth: bool) -> RateLimit | None:
    own.only(("per", "requests", "tokens", "every"))
    per = cast(Per, one_of(own, "per", get_args(Per), "to limit by") or ("key" if auth else "service"))
    requests, tokens = own.whole("requests", 1, 10**9), own.whole("tokens", 1, 10**12)
    if ("requests" in own) == ("tokens" in own):
        own.sheet.wrong(own.node, own.path, "needs one of `requests` and `tokens`", "write `requests: 600`")
        return None
    if per == "key" and not auth:
        own.wrong("per", "there are no keys where `auth` is false", "write `per: service`")
    if tokens is not None and protocol != "openai":
        own.wrong("tokens", f"`{protocol}` counts no tokens", "write `requests`")
    return RateLimit(
        per=per, every_s=float(own.parsed("every", _window) or 60), requests=requests, tokens=tokens
    )


def _same(limit: RateLimit, other: RateLimit) -> bool:
    return (limit.per, limit.every_s, limit.requests is None) == (
        other.per,
        other.every_s,
        other.requests is None,
    )


def balance_of(top: Entries, protocol: Protocol) -> Balance:
    balance = cast(Balance, one_of(top, "balance", get_args(Balance), "to balance") or "least")
    if balance == "prefix" and protocol != "openai":
        top.wrong("balance", f"`prefix` follows prompts, and `{protocol}` has none", "write `balance: least`")
    return balance


# ---- single values


def one_of(entries: Entries, key: str, known: tuple[str, ...], what: str) -> Any:
    written = entries.text(key)
    if written is None or written in known:
        return written
    choices = " or ".join(f"`{each}`" for each in known) if len(known) < 3 else ", ".join(known)
    entries.wrong(key, f"there is no {key} `{written}` {what}", f"write {choices}")
    return None


def truth_of(top: Entries, key: str, *, usual: bool) -> bool:
    if key not in top:
        return usual
    decided = top.truth(key)
    if decided is None:
        top.wrong(
            key, "is neither true nor false", f"write `{key}: {str(not usual).lower()}`, or leave it out"
        )
        return usual
    return decided


def _number(entries: Entries, key: str, *, above: float, most: float) -> float | None:
    def bounded(written: str | int | float) -> float:
        if isinstance(written, str) or not above < written <= most:
            least = "0" if above < 0 else f"above {above:g}"
            raise ValueError(
                f"`{written}` is not a number from {least} to {most:g}; write it like {key}: {_like(most)}"
            )
        return float(written)

    return entries.parsed(key, bounded)


def _like(most: float) -> str:
    return "0.5" if most <= 1 else "10"


def or_usual(found: Any, usual: Any) -> Any:
    return usual if found is None else found


def _window(written: str | int | float) -> int:
    return _seconds(written, least=1, most=30 * 86_400)


def _delay(written: str | int | float) -> int:
    return _seconds(written, least=0, most=86_400)


def request_s(written: str | int | float) -> int:
    return _seconds(written, least=1, most=TIMEOUT_MOST_S)


def _seconds(written: str | int | float, *, least: int, most: int) -> int:
    seconds = duration_s(written)
    if not least <= seconds <= most:
        raise ValueError(f"`{written}` is not between {least} and {most} seconds; write it like 30s or 2m")
    return seconds


def body_bytes(written: str | int | float) -> int:
    size = size_bytes(written)
    if not 1024 <= size <= BODY_MOST_BYTES:
        raise ValueError(f"`{written}` is not between 1 KB and 1 GB; write it like 8MB")
    return size


def short(written: str | int | float) -> str:
    if not 1 <= len(str(written)) <= 64 or not str(written).isprintable():
        raise ValueError("is empty or too long; use 1 to 64 printable characters, `Apache-2.0`")
    return str(written)
