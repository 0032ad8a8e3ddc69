"""Services in memory, with rows as the real views give them, and somebody who answers requests that are tried."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from baseai.ground.fault import NotFound
from baseai.serving.example import Example
from baseai.tenancy.key import Holder
from baseai.truth.session import Scope
from baseai.views.services.traffic import WINDOWS, Steps, points_of, told_of
from baseai.web.doors import Called, GatewayAway, Serving
from baseai.workloads.spec import spec_of
from tests.views.services import CHAT, MAGIKA, counts

Row = dict[str, Any]
NOON = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
SERVICE = "svc_0123456789abcdefghjk"


def spec(text: str = MAGIKA, name: str = "magika") -> Row:
    return spec_of(text.format(name=name), "service.yaml", lambda *_: ()).to_json()


def service(service_id: str = SERVICE, **facts: Any) -> Row:
    return {
        "service_id": service_id, "name": "magika", "tenant_id": "ten_a", "tenant": "acme", "project": "default",
        "model_name": "magika", "model": "pkg:magika:model.onnx", "engine": "onnx", "protocol": "oip",
        "license": "Apache-2.0", "gpu": "cpu-slot:1", "nodes": 1, "state": "serving", "sentence": None, "version_no": 1,
        "candidate_no": 2, "candidate_share": 0.1, "step_at": NOON, "wanted": 3,
        "wanted_why": "11.5 requests under way, 4 a replica", "replicas": 2, "ready": 2, "least": 0, "most": 4,
        "concurrency": 16, "p99_ms": 100.0, "auth": True, "cached": True, "requests_per_s": 21.4, "error_ratio": 0.002,
        "made_by": "ana", "made_at": NOON, "stopped_at": None,
    } | facts  # fmt: skip


def replica(number: int = 1, **facts: Any) -> Row:
    return {
        "run_id": f"run_{number}", "run": f"magika-{number}", "run_state": "running", "version_no": 1, "state": "ready",
        "node": "node-a", "address": "127.0.0.1", "port": 9000 + number, "waits": None, "why": None,
        "run_sentence": None, "warm_up_s": 4.2, "age_s": 600.0, "made_at": NOON, "ready_at": NOON,
    } | facts  # fmt: skip


def version(number: int = 1, **facts: Any) -> Row:
    return {
        "version_no": number, "state": "current", "share": 0.9, "digest": f"{number:064x}", "engine": "onnx",
        "model": "pkg:magika:model.onnx", "sentence": None, "step_at": None, "made_by": "ana", "made_at": NOON,
        "settled_at": None,
    } | facts  # fmt: skip


@dataclass(kw_only=True)
class Shelf:
    """Services, their money, and whoever answers, over rows that a test may change."""

    rows: list[Row] = field(default_factory=lambda: [service()])
    spec: Row = field(default_factory=spec)
    replicas: list[Row] = field(
        default_factory=lambda: [
            replica(1), replica(2),
            replica(3, state="starting", run_state="queued", node=None, port=None, warm_up_s=None,
                    waits="first in the queue, waits for 1 accelerator"),
        ]
    )  # fmt: skip
    cost: Decimal | None = Decimal("0.0042")
    answer: tuple[int, dict[str, str], tuple[bytes, ...]] | None = (
        200, {"content-type": "application/json", "cache-status": "baseai; hit", "set-cookie": "x=1"},
        (b'{"ok": true}',),
    )  # fmt: skip
    called: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    media_types: list[str] = field(default_factory=list)

    def serving(self) -> Serving:
        return Serving(views=self, money=self, calls=self, gateway_url="http://127.0.0.1:7801")

    def _seen(self, scope: Scope) -> list[Row]:
        return [row for row in self.rows if scope.tenant_id in (None, row["tenant_id"])]

    async def services(
        self, scope: Scope, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]:
        return [row for row in self._seen(scope) if everything or row["state"] != "stopped"], None

    async def service(self, scope: Scope, name: str) -> Row:
        for row in self._seen(scope):
            if name in (row["service_id"], row["name"]):
                return {
                    "service": row, "replicas": self.replicas, "spec": self.spec,
                    "versions": [version(2, state="candidate", share=0.1), version()],
                    "scalings": [
                        {"at": NOON, "wanted": 3, "had": 1, "ready": 1, "demand": 11.5, "panic": True,
                         "why": "11.5 requests under way, 4 a replica"}
                    ],
                    "slo": {"p99_ms": 100.0, "state": "kept", "burn": 0.4, "burn_now": 0.1, "seen_p99_ms": 81.2,
                            "requests": 1000},
                }  # fmt: skip
        raise NotFound("service", name)

    async def traffic(self, scope: Scope, name: str, window: str = "15m") -> Row:
        """A load that rises, falls and rests, with as many replicas as it took."""
        await self.service(scope, name)
        asked = WINDOWS[window]
        from_at = NOON - timedelta(seconds=asked.span_s)
        counted, concurrency, whole = {}, {}, []
        for number in range(asked.span_s // asked.step_s):
            at = from_at + timedelta(seconds=number * asked.step_s)
            rate = max(0.0, 30 * (1 - abs(number - 45) / 35))
            requests = round(rate * asked.step_s)
            concurrency[at] = rate * 0.4
            if requests:
                row = dict.fromkeys(
                    ("errors", "refused", "slow", "cache_hits", "collapsed", "retried", "lost", "tokens_in",
                     "tokens_out", "bytes_in", "bytes_out"), 0,
                )  # fmt: skip
                slow = requests // 40
                buckets = counts((8.0 + rate / 3, requests - slow), (60.0 + rate, slow))
                counted[at] = row | {
                    "requests": requests, "slow": slow // 4, "cache_hits": requests // 3, "latency": buckets,
                    "first_byte": buckets, "bytes_in": 2_000 * requests, "bytes_out": 300 * requests,
                    "errors": requests // 200,
                }  # fmt: skip
                whole.append(counted[at])
        total = {
            key: [sum(each) for each in zip(*(row[key] for row in whole), strict=True)]
            if isinstance(whole[0][key], list)
            else sum(row[key] for row in whole)
            for key in whole[0]
        }
        steps = [from_at + timedelta(seconds=share * asked.span_s) for share in (0.0, 0.25, 0.4, 0.8)]
        wanted = Steps(at=tuple(steps), values=(0, 1, 3, 1))
        ready = Steps(at=tuple(at + timedelta(seconds=3 * asked.step_s) for at in steps), values=(0, 1, 3, 1))
        return {
            "from_at": from_at, "until_at": NOON, "step_s": asked.step_s, "window": window,
            "total": told_of(total, asked.span_s),
            "points": points_of(
                counted, from_at, NOON, asked.step_s, concurrency=concurrency, wanted=wanted, ready=ready
            ),
        }  # fmt: skip

    async def models(
        self, scope: Scope, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]:
        models = [
            {
                "model_id": "mdl_1", "name": "magika", "digest": "d" * 64, "tenant": "acme", "project": "default",
                "source": "pkg:magika:model.onnx", "origin_run_id": None, "origin_run": None, "evaluation": {},
                "bytes": 3_100_000, "license": "Apache-2.0", "engine": "onnx", "served_by": ["magika"], "made_at": NOON,
            },
            {
                "model_id": "mdl_2", "name": "chat", "digest": "e" * 64, "tenant": "acme", "project": "default",
                "source": "run:run_x", "origin_run_id": "run_x", "origin_run": "train-gpt",
                "evaluation": {"bits_per_byte": 1.821}, "bytes": 41_200_000, "license": None,
                "engine": "chat", "served_by": [], "made_at": NOON,
            },
        ]  # fmt: skip
        return (models if scope.tenant_id in (None, "ten_a") else []), None

    async def service_cost(self, scope: Scope, name: str, window: str = "24h") -> Row:
        row = {
            "currency": "USD", "replicas": 3, "accelerator_hours": Decimal("0.5"), "revenue": Decimal("0.02"),
            "cost": self.cost if scope.tenant_id is None else None, "revenue_per_1000_requests": Decimal("0.0016"),
            "cost_per_1000_requests": Decimal("0.00034") if scope.tenant_id is None else None,
            "revenue_per_million_tokens": None, "cost_per_million_tokens": None, "requests": 12_345, "tokens": 0,
            "accruing": True, "estimated": True,
        }  # fmt: skip
        return {"window": window, "from_at": NOON, "until_at": NOON, "items": [row]}

    async def call(
        self, holder: Holder, service: Row, example: Example, body: bytes, media_type: str
    ) -> Called:
        self.called.append((service["service_id"], example.method, example.path, body))
        self.media_types.append(media_type)
        if self.answer is None:
            raise GatewayAway("Connection refused")
        status, headers, pieces = self.answer

        async def told() -> AsyncGenerator[bytes, None]:
            for piece in pieces:
                yield piece

        return Called(status=status, headers=headers, pieces=told())


def chat_shelf() -> Shelf:
    """A language model, which streams."""
    rows = [service(name="chat", model_name="chat", engine="chat", protocol="openai", candidate_no=None)]
    return Shelf(rows=rows, spec=spec(CHAT, "chat"))
