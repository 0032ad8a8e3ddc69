"""A platform in memory, with rows as the real views give them: what the pages stand on in these tests."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from baseai.ground.fault import Fault, NotFound
from baseai.ground.identity import KeyId, TenantId
from baseai.tenancy.key import Holder, NotAdmitted
from baseai.tenancy.role import Role
from baseai.truth.session import Scope
from baseai.web.doors import Books, By, WebDoors, WebSettings
from tests.web.fleet import Asked
from tests.web.ledger import Ledger
from tests.web.services import Shelf

Row = dict[str, Any]
NOON = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
LINK = "link_once"
RUN = "run_0123456789abcdefghjk"
HOSTILE = '<script>alert("x")</script>'
BASIS = "straight line over 5 years, 8 W a core, PUE 1.3, US$ 0.12/kWh, colocation US$ 150/kW-month (2026-01)"


def holder(role: Role, tenant: str | None = None) -> Holder:
    return Holder(
        key_id=KeyId("key_1"),
        name=f"{role.value}@test",
        role=role,
        tenant_id=TenantId(tenant) if tenant else None,
        project_id=None,
        node_id=None,
    )


def run(run_id: str = RUN, **facts: Any) -> Row:
    """A training run that has recovered once, unless said otherwise."""
    return {
        "run_id": run_id, "name": "train-gpt", "tenant_id": "ten_a", "tenant": "acme", "project": "default",
        "kind": "train", "state": "running", "reason": "started", "sentence": None, "priority": 50,
        "gpu": "cpu-slot:2", "nodes": 1, "attempt_no": 1, "restarts": 1,
        "submitted_at": NOON, "started_at": NOON + timedelta(seconds=3), "ended_at": None,
        "progress": {
            "step": 400, "steps_total": 600, "loss": 3.412, "tokens_per_s": 11873.4, "step_ms": 172.4,
            "sync_ratio": 0.083, "goodput_ratio": 0.914, "parameters": 3_412_992, "workers": 2,
        },
        "result": {}, "wait": None, "why": None, "simulated": False, "node_names": ["node-a"],
    } | facts  # fmt: skip


def waiting(run_id: str = "run_waiting", **facts: Any) -> Row:
    wait = {
        "position": 1, "ahead": 0, "code": "short", "behind": None, "fitting": 0, "needed": 1,
        "sentence": "Waiting, first in the queue.", "failing": {"accelerators": 1, "memory": 2},
        "change": {"lever": "accelerators", "asked": 8, "instead": 2,
                   "sentence": "2 accelerators on each node instead of 8"},
        "owners_ahead": [], "own_ahead": None, "others_ahead": None,
        "estimate": {
            "asked_at": NOON.isoformat(), "earliest_at": (NOON + timedelta(minutes=10)).isoformat(),
            "likely_at": (NOON + timedelta(minutes=40)).isoformat(),
            "latest_at": (NOON + timedelta(hours=2)).isoformat(), "held_ratio": 0.79, "outcomes": 412, "sentence": "",
        },
        "earliest_at": (NOON + timedelta(hours=1)).isoformat(), "latest_at": (NOON + timedelta(hours=2)).isoformat(),
    }  # fmt: skip
    return run(
        run_id, name="finetune-h100", state="queued", reason="submitted", gpu="cpu-slot:8", attempt_no=0,
        restarts=0, progress={}, started_at=None, node_names=[], wait=wait, **facts,
    )  # fmt: skip


def node(name: str = "node-a", **facts: Any) -> Row:
    return {
        "node_id": f"nod_{name}", "name": name, "site": "local", "state": "ready", "health": "healthy",
        "reachable": True, "address": "127.0.0.1", "isolation": "user", "models": {"cpu-slot": 4},
        "free": {"cpu-slot": 2}, "memory_mib": 15_900, "disk_mib": 204_800, "seen_at": NOON, "runs": ["train-gpt"],
        "simulated": False,
    } | facts  # fmt: skip


def cost(subject: str, *, label: str = "", hours: str = "0.0458", accruing: bool = True, **facts: Any) -> Row:
    return {
        "subject": subject, "label": label or subject, "accelerator_hours": Decimal(hours),
        "revenue": Decimal("0.001833"), "cost": Decimal("0.000417"), "contribution": Decimal("0.001416"),
        "currency": "USD", "accruing": accruing, "basis": BASIS,
    } | facts  # fmt: skip


def points(count: int = 80) -> list[Row]:
    return [
        {
            "step": 5 * number, "at": NOON + timedelta(seconds=5 + number), "loss": 3.1 + 4.2 * math.exp(-number / 22)
            + 0.09 * math.sin(number * 1.7), "tokens_per_s": 11800.0 + 90 * math.sin(number), "step_ms": 172.0,
            "sync_ratio": 0.08, "goodput_ratio": 0.9,
        }
        for number in range(count)
    ]  # fmt: skip


def event(name: str, at_s: float, **facts: Any) -> Row:
    return {
        "at": NOON + timedelta(seconds=at_s), "subject": RUN, "event": name, "from_state": None, "to_state": None,
        "reason": None, "actor": "controller", "sentence": None,
    } | facts  # fmt: skip


@dataclass(kw_only=True)
class Platform:
    """Views, money, gate and news in one, over lists that a test may change."""

    holder: Holder = field(default_factory=lambda: holder(Role.OPERATOR))
    rows: list[Row] = field(default_factory=lambda: [run(), waiting()])
    node_rows: list[Row] = field(
        default_factory=lambda: [
            node(),
            node("node-b", reachable=False, runs=[], health="suspect", free={"cpu-slot": 4}),
        ]
    )
    curve: list[Row] = field(default_factory=points)
    difference: Decimal = Decimal(0)
    fault: Fault | None = None
    sessions: set[str] = field(default_factory=lambda: {"ses_open"})
    links: set[str] = field(default_factory=lambda: {LINK})
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    eyes: Asked | None = None
    cells: list[Row] | None = None  # of a fleet that is too large to say by hand
    judged: Row | None = None
    use: Row | None = None
    collector_rows: list[Row] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    shelf: Shelf = field(default_factory=Shelf)

    def doors(self, *, demo: bool = False) -> WebDoors:
        return WebDoors(
            views=self, money=self, gate=self, news=self, eyes=self.eyes, uses=self if self.eyes else None,
            health=self if self.judged else None, queues=self,
            books=Books(ledger=self.ledger, time=self.ledger, costs=self.ledger, postings=self.ledger,
                        invoices=self.ledger),
            serving=self.shelf.serving(), settings=WebSettings(demo=demo),
        )  # fmt: skip

    # ---- views

    def _seen(self, scope: Scope) -> list[Row]:
        if self.fault is not None:
            raise self.fault
        return [row for row in self.rows if scope.tenant_id in (None, row["tenant_id"])]

    async def runs(
        self, scope: Scope, *, states: Sequence[str] = (), everything: bool = False, limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[Sequence[Row], str | None]:  # fmt: skip
        found = [row for row in self._seen(scope) if not states or row["state"] in states]
        start = int(cursor or 0)
        more = str(start + limit) if len(found) > start + limit else None
        return found[start : start + limit], more

    async def run(self, scope: Scope, run_id: str) -> Row:
        for row in self._seen(scope):
            if row["run_id"] == run_id:
                return {"run": row, **self._details(row), "spec": {}}
        raise NotFound("run", run_id)

    def _details(self, row: Row) -> Row:
        if row["state"] == "queued":
            return {"leases": [], "events": [event("submit", 0, reason="submitted")], "checkpoints": [],
                    "preemptions": []}  # fmt: skip
        lease = {
            "lease_id": "lea_1", "attempt_no": 1, "node_id": "nod_node-a", "node": "node-a", "state": "active",
            "accelerators": ["slot-7f3a-0", "slot-7f3a-1"], "model": "cpu-slot", "granted_at": NOON,
            "ends_at": NOON + timedelta(hours=24), "observed_from": NOON + timedelta(seconds=3),
            "observed_until": NOON + timedelta(seconds=80), "released_at": None,
        }  # fmt: skip
        checkpoints = [
            {
                "step": step, "attempt_no": 1, "bytes": 41_200_000, "save_s": 0.31, "stall_ms": 4.2,
                "path": f"checkpoints/step-{step:08d}", "committed_at": NOON + timedelta(seconds=step / 5),
            }
            for step in (300, 200, 100)
        ]  # fmt: skip
        events = [
            event("submit", 0, reason="submitted", actor="ada@acme", to_state="queued"),
            event("grant", 1, reason="granted", actor="scheduler", to_state="starting", sentence="attempt 1"),
            event("begin", 3, reason="started", to_state="running"),
            event(
                "recover", 47, reason="worker_lost", actor="agent", to_state="recovering",
                sentence="worker 1 ended by signal 9",
            ),
            event("begin", 49, reason="recovered", actor="agent", to_state="running"),
        ]  # fmt: skip
        made_room = {
            "attempt_no": 1, "asked_at": NOON + timedelta(seconds=60), "stopped_at": NOON + timedelta(seconds=64),
            "for_kind": "run", "for_run": None, "saved_step": 300, "lost_accelerator_s": 0.8, "resumed_step": 301,
        }  # fmt: skip
        return {"leases": [lease], "events": events, "checkpoints": checkpoints, "preemptions": [made_room]}

    async def points(self, scope: Scope, run_id: str) -> Sequence[Row]:
        row = (await self.run(scope, run_id))["run"]
        return [] if row["state"] == "queued" else self.curve

    async def nodes(self, scope: Scope) -> Sequence[Row]:
        return self.node_rows

    async def accelerators(self, scope: Scope, node_id: str) -> Sequence[Row]:
        return [
            {
                "accelerator_id": f"acc_{number}", "model": "cpu-slot", "serial": f"slot-7f3a-{number}",
                "device_index": number, "state": "in_service", "run_id": RUN if number < 2 else None,
            }
            for number in range(4)
        ]  # fmt: skip

    async def installed(self, scope: Scope) -> Sequence[Row]:
        if self.cells is not None:
            return self.cells
        node = self.node_rows[0]
        held = self.rows[0] if self.rows else {}
        return [
            {
                **row, "node_id": node["node_id"], "node": node["name"], "site": node["site"], "rack": "",
                "health": node["health"], "simulated": node["simulated"], "run": held.get("name"),
                "tenant": held.get("tenant"),
            }
            for row in await self.accelerators(scope, node["node_id"])
        ]  # fmt: skip

    async def accelerator(self, scope: Scope, serial: str) -> Row:
        for row in await self.installed(scope):
            if row["serial"] == serial:
                lease = {
                    **self._details(self.rows[0])["leases"][0],
                    "run_id": RUN,
                    "run": "train-gpt",
                    "tenant": "acme",
                }
                return {
                    "state": "in_service",
                    "memory_mib": 0,
                    **row,
                    "leases": [lease] if row["run_id"] else [],
                }
        raise NotFound("accelerator", serial)

    async def offers(self) -> Sequence[Row]:
        return [{"site": "local", "model": "cpu-slot", "total": 8, "free": 2, "largest_single_node": 4}]

    async def queue(
        self, scope: Scope, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]:
        waiting = [row for row in self._seen(scope) if row["state"] == "queued"]
        start = int(cursor or 0)
        return waiting[start : start + limit], str(start + limit) if start + limit < len(waiting) else None

    async def run_counts(self, scope: Scope) -> Mapping[str, int]:
        return {"queued": sum(row["state"] == "queued" for row in self._seen(scope))}

    async def room(self) -> Sequence[Row]:
        return [{"model": "cpu-slot", "total": 8, "free": 2}]

    async def queues(self, scope: Scope) -> Sequence[Row]:
        models = [
            {
                "model": "cpu-slot",
                "quota": 4,
                "limit": None,
                "held": 6,
                "spot": 1,
                "usage_accelerator_h": 12.25,
            },
        ]
        usual = {"parent": "root", "tenant": None, "project": None, "waiting": 0, "running": 0, "models": []}
        lab = {"name": "lab", "tenant": "acme", "waiting": 1, "running": 2, "models": models}
        return [usual | lab, usual | {"name": "default"}]

    async def accuracy(self) -> Sequence[Row]:
        return [
            {
                "models": ["cpu-slot"], "simulated": False, "outcomes": 412, "held_ratio": 0.79,
                "median_error_s": 750.0, "from_at": NOON,
            }
        ]  # fmt: skip

    # ---- uses and health

    async def use_of_run(self, scope: Scope, run_id: str) -> Row:
        await self.run(scope, run_id)
        if self.use is None:
            raise NotFound("use", run_id)
        return self.use

    async def uses(self, scope: Scope, *, by: str, subject: str | None = None, **_: Any) -> Sequence[Row]:
        return [{**self.use, "subject": subject, "label": "node-a"}] if self.use and by == "lease" else []

    async def collectors(self, scope: Scope, node_id: str) -> Sequence[Row]:
        return self.collector_rows

    async def nodes_health(self, scope: Scope) -> Sequence[Row]:
        return [self.judged] if self.judged else []

    async def health_of(self, scope: Scope, node: str) -> Row:
        if self.judged is None or self.judged["node_id"] != node:
            raise NotFound("node", node)
        return self.judged

    # ---- money

    async def cost(self, by: By, subject: str | None, scope: Scope) -> Sequence[Row]:
        if by == "run":
            return [cost(subject or RUN)] if subject == RUN else []
        names = {
            "node": [("nod_node-a", "node-a")],
            "accelerator": [("acc_0", "slot-7f3a-0"), ("acc_1", "slot-7f3a-1")],
            "tenant": [("ten_a", "acme")],
        }[by]
        return [cost(each, label=label) for each, label in names]

    async def trial_balance(self, scope: Scope) -> Row:
        amounts = [
            ("tenant:ten_a:receivable", "0.001833", "0"), ("revenue:on_demand", "0", "0.001833"),
            ("cost:depreciation", "0.000417", "0"), ("asset:accumulated_depreciation", "0", "0.000417"),
        ]  # fmt: skip
        return {
            "at": NOON,
            "balances": [
                {
                    "account": account, "currency": "USD", "debits": Decimal(debit), "credits": Decimal(credit),
                    "balance": Decimal(debit) - Decimal(credit),
                }
                for account, debit, credit in amounts
            ],
            "difference": self.difference,
        }  # fmt: skip

    async def prices(self) -> Mapping[str, Decimal]:
        return {"cpu-slot": Decimal("0.04")}

    # ---- gate

    async def use_link(self, token: str) -> str:
        if token not in self.links:
            raise NotAdmitted
        self.links.remove(token)
        self.sessions.add("ses_new")
        return "ses_new"

    async def session_holder(self, session: str) -> Holder:
        if session not in self.sessions:
            raise NotAdmitted
        return self.holder

    async def sign_out(self, session: str) -> None:
        self.sessions.discard(session)

    # ---- news

    async def run_changes(self, run_id: str) -> AsyncIterator[None]:
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield

    def fleet_changes(self) -> AsyncIterator[None]:
        return self.run_changes("")

    def serving_changes(self) -> AsyncIterator[None]:
        return self.run_changes("")
