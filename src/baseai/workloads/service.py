"""A service is a model or program that answers requests as long as its tenant wants, by replicas that come and go.

Invariant: each replica is one run of this work on a lease of its own; how many there are is decided by the room
`serving`, never by the replica. Read from a spec by `service_of` in `service_keys.py`; nobody changes it: another spec
is another version.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

KIND = "service"

Engine = Literal["onnx", "embeddings", "chat", "callable", "command", "vllm", "ray"]
Protocol = Literal["openai", "oip", "json"]
Balance = Literal["least", "prefix", "session"]
Metric = Literal["concurrency", "requests"]
Per = Literal["key", "service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas there shall be, as demand has it."""

    least: int = 1  # 0 lets the service go to rest
    most: int = 1
    metric: Metric = "concurrency"  # requests under way at once, or requests a second
    target: float = 4.0  # of `metric`, for each replica
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    to_zero_after_s: float = 30.0  # without any request, beside the stable window
    scale_down_delay_s: float = 0.0
    warm: int = 0  # replicas that stand ready beyond what demand calls for, and are paid for

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ValueError(f"between {self.least} and {self.most} replicas is no range")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTerms:
    """How long and how much of a service's answers a gateway may keep."""

    max_age_s: float = 600.0
    most_bytes: int = 64 << 20  # in each gateway process
    semantic: float | None = None  # least cosine of two texts that count as one; None: only equal ones do


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How much one key, or all keys together, may ask for in a stretch of time. One of the two amounts is set."""

    per: Per
    every_s: float
    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How a new version takes over."""

    shares: tuple[float, ...] = (0.1, 0.5, 1.0)  # of requests, step by step
    bake_s: float = 30.0  # each step stands so long before the next
    most_error_ratio: float = 0.02  # of a step's requests; beyond it the old version comes back
    burn: float = 2.0  # how many times the old version's misses of the SLO end the rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How a callable's inputs are put together."""

    most: int = 16
    wait_ms: float = 2.0  # for others, after the first; a lone request on an idle replica does not wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The part of a spec that only a service has."""

    engine: Engine
    model: str | None  # as written; `model_source_of` reads it. None of a command that brings its own
    model_name: str  # what clients call it; by default the service's name
    protocol: Protocol
    commands: tuple[str, ...] = ()  # shell lines, of `command` and `ray`
    port: int | None = None  # where the command listens; None: at $PORT, which the replica is given
    ready_path: str = "/"  # of a command; any answer below 500 counts
    license: str | None = None
    scaling: Scaling = Scaling()
    concurrency: int = 16  # requests that one replica is given at once, at most
    batching: Batching | None = None
    p99_ms: float | None = None  # the SLO
    cache: CacheTerms | None = None
    auth: bool = True
    rate_limits: tuple[RateLimit, ...] = ()
    balance: Balance = "least"
    timeout_s: float = 60.0  # of one request, holding included
    queue_most: int = 200  # requests that are held for a free replica, in each gateway process
    most_body_bytes: int = 8 << 20
    most_tokens: int | None = None  # of a prompt with its answer, where the engine does not know by itself
    rollout: Rollout = Rollout()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Service":
        """What `to_json` stored; keys of another version are left aside."""
        known = _known(Service, stored)
        known["commands"] = tuple(known.get("commands", ()))
        known["scaling"] = Scaling(**_known(Scaling, known["scaling"]))
        limits = known.get("rate_limits", ())
        known["rate_limits"] = tuple(RateLimit(**_known(RateLimit, limit)) for limit in limits)
        rollout = _known(Rollout, known["rollout"])
        known["rollout"] = Rollout(**{**rollout, "shares": tuple(rollout["shares"])})
        for name, kind in (("cache", CacheTerms), ("batching", Batching)):
            if known.get(name) is not None:
                known[name] = kind(**_known(kind, known[name]))
        return Service(**known)


def _known(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in stored.items() if name in names}
