"""Queues in PostgreSQL: the tree, what its leaves hold and had, and how operators change it.

Every change is checked as a whole new tree, under a lock, so that two that are each sound and together are not cannot
both be made; each is an event. Nothing is kept of usage: it is read from the leases of the last ten half-lives.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import ProjectId, TenantId
from baseai.scheduling.queue_tree import ROOT, USAGE_HALF_LIVES, Queue, QueueTree, leaf_of
from baseai.scheduling.queues.occupancy import NOTHING, Amounts, Live, Occupancy, occupancies
from baseai.scheduling.queues.setting import Setting, change_text, changed
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.burn import KIND as BURN_IN
from baseai.workloads.spec import DEFAULT_QUEUE

Row = dict[str, Any]
PLATFORM = Scope(tenant_id=None, actor="queues")
BY_THEMSELVES = (ROOT, DEFAULT_QUEUE)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

_HELD = """
SELECT r.queue, l.tenant_id, r.spot, l.model, count(*) AS amount
FROM leases l JOIN lease_accelerators USING (lease_id) JOIN runs r ON r.run_id = l.run_id
WHERE l.state <> 'released' AND r.kind <> %s GROUP BY 1, 2, 3, 4
"""
# queue_tree.decayed_accelerator_s of what reaches into the last ten half-lives of each queue.
_USAGE = """
SELECT queue, tenant_id, model, sum(accelerators * half_life_s / ln(2.0::float8) * (
    2.0::float8 ^ (extract(epoch FROM until_at - %(now)s)::float8 / half_life_s)
  - 2.0::float8 ^ (extract(epoch FROM from_at - %(now)s)::float8 / half_life_s))) AS amount
FROM (SELECT r.queue, l.tenant_id, l.model, h.half_life_s,
    greatest(l.granted_at, %(now)s - make_interval(secs => h.half_life_s * %(times)s)) AS from_at,
    least(l.released_at, %(now)s) AS until_at,
    (SELECT count(*) FROM lease_accelerators la WHERE la.lease_id = l.lease_id) AS accelerators
  FROM leases l JOIN runs r ON r.run_id = l.run_id
    LEFT JOIN unnest(%(queues)s::text[], %(half_lives)s::float8[]) AS k (queue, half_life_s) USING (queue)
    CROSS JOIN LATERAL (SELECT coalesce(k.half_life_s, %(otherwise)s::float8) AS half_life_s) h
  WHERE (l.released_at IS NULL OR l.released_at > %(now)s - make_interval(secs => %(longest)s::float8 * %(times)s))
    AND r.kind <> %(burn_in)s AND NOT r.spot) held
WHERE from_at < until_at GROUP BY 1, 2, 3
"""
_RUNS = """
SELECT queue, tenant_id, count(*) FILTER (WHERE state = 'queued') AS waiting,
  count(*) FILTER (WHERE state <> 'queued') AS running
FROM runs WHERE state NOT IN ('succeeded', 'failed', 'cancelled') AND kind <> %s GROUP BY 1, 2
"""


async def load_tree(session: Session) -> QueueTree:
    """All queues that operators have set."""
    return QueueTree(tuple(map(_queue_of, await fetch_all(session, "SELECT * FROM queues ORDER BY name"))))


async def load_usage(session: Session, now: datetime, tree: QueueTree) -> Amounts:
    """Decayed accelerator-seconds by leaf and model at `now`, spot and tests left out. O(leases of ten half-lives)."""
    half_lives = {queue.name: tree.half_life_s(queue.name) for queue in tree.queues}
    otherwise = tree.half_life_s(leaf_of("", DEFAULT_QUEUE))
    return _by_leaf(
        await fetch_all(
            session,
            _USAGE,
            {
                "now": now,
                "times": USAGE_HALF_LIVES,
                "queues": list(half_lives),
                "half_lives": list(half_lives.values()),
                "otherwise": otherwise,
                "longest": max([otherwise, *half_lives.values()]),
                "burn_in": BURN_IN,
            },
        )
    )


async def load_held(session: Session) -> tuple[Amounts, Amounts]:
    """Accelerators that runs hold by leaf and model: those that are not spot, and those that are. Tests left out."""
    rows = await fetch_all(session, _HELD, (BURN_IN,))
    return _by_leaf(row for row in rows if not row["spot"]), _by_leaf(row for row in rows if row["spot"])


class PostgresQueues:
    """What doors and operators ask of queues. `models` are the accelerator models that there are."""

    def __init__(self, truth: Truth, models: Collection[str]) -> None:
        self._truth = truth
        self._models = models

    async def queues(self, scope: Scope, *, shared_alone: bool = False) -> list[Row]:
        """Rows with the fields of NamedQueueView, by name, each tenant's default last.

        Those that everybody may use and, unless `shared_alone`, those of the asker. What a queue holds and had is of
        everybody in and below it: who waits behind others may know behind how much.
        """
        async with self._truth.transaction(PLATFORM) as session:
            now = await fetch_one(session, "SELECT now() AS at")
            assert now is not None
            tree = await load_tree(session)
            held, spot = await load_held(session)
            usage_s = await load_usage(session, now["at"], tree)
            live = {
                leaf_of(row["tenant_id"], row["queue"]): Live(row["waiting"], row["running"])
                for row in await fetch_all(session, _RUNS, (BURN_IN,))
            }
            tenants = await _names(session, "SELECT tenant_id AS id, name FROM tenants WHERE NOT house")
            projects = await _names(session, "SELECT project_id AS id, name FROM projects")
            installed = {
                row["model"]: row["total"]
                for row in await fetch_all(
                    session,
                    "SELECT model, count(*) AS total FROM accelerators WHERE state = 'in_service' GROUP BY 1",
                )
            }
        within = occupancies(tree, held, spot, usage_s, live)

        def is_seen(queue: Queue) -> bool:
            return queue.tenant is None or (not shared_alone and scope.tenant_id in (None, queue.tenant))

        defaults = [Queue(name=DEFAULT_QUEUE, tenant=tenant_id) for tenant_id in tenants]
        rows = []
        for queue in (*tree.queues, *defaults):
            if not is_seen(queue):
                continue
            leaf = leaf_of(queue.tenant or "", queue.name)
            rows.append(
                {
                    **_row_of(queue, within.get(leaf, NOTHING)),
                    "tenant": None if queue.tenant is None else tenants.get(queue.tenant),
                    "project": None if queue.project is None else projects.get(queue.project),
                    "half_life_s": tree.half_life_s(leaf),
                    "below": [one.name for one in tree.below(queue.name) if is_seen(one)],
                    "note": _promised_text(tree, queue, installed),
                }
            )
        return sorted(rows, key=lambda row: (row["name"] == DEFAULT_QUEUE, row["name"], row["tenant"]))

    async def queue(self, scope: Scope, name: str, *, shared_alone: bool = False) -> Row:
        """One of them. Raises NotFound, Refused where more than one tenant has it."""
        rows = await self.queues(scope, shared_alone=shared_alone)
        found = [row for row in rows if row["name"] == name]
        if not found:
            raise NotFound("queue", f"{name}{_nearest(name, [row['name'] for row in rows])}")
        if len(found) > 1:
            raise Refused(f"every tenant has a {name} of its own: the list of queues shows each")
        return found[0]

    async def set(self, name: str, setting: Setting, *, actor: str) -> None:
        """Make a queue, or change one. Raises Refused for what would not be sound, NotFound for its owner."""
        if name in BY_THEMSELVES:
            raise Refused(
                f"{name} is there by itself and cannot be set: the root is above all queues, and every tenant has a"
                f" {DEFAULT_QUEUE} of its own; make one of another name"
            )
        if not _NAME.fullmatch(name):
            raise Refused(
                f"{name[:80]!r} is not a name of a queue: use 1 to 63 of a-z, 0-9 and -, no - at the ends"
            )
        for model in (*(setting.quota or ()), *(setting.limit or ())):
            if model not in self._models:
                raise Refused(f"there is no accelerator model {model}{_nearest(model, self._models)}")
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            await session.execute("LOCK TABLE queues IN SHARE ROW EXCLUSIVE MODE")
            tree = await load_tree(session)
            before = tree.by_name.get(name)
            try:
                after = changed(name, before, await self._with_owner(session, before, setting))
                QueueTree((*(one for one in tree.queues if one.name != name), after))
            except ValueError as wrong:
                raise Refused(str(wrong)) from wrong
            if after == before:
                return
            await session.execute(
                "INSERT INTO queues (name, parent, weight, quota, limits, half_life_s, tenant_id, project_id, set_by)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET (parent, weight, quota,"
                " limits, half_life_s, tenant_id, project_id, set_by, set_at) = (EXCLUDED.parent, EXCLUDED.weight,"
                " EXCLUDED.quota, EXCLUDED.limits, EXCLUDED.half_life_s, EXCLUDED.tenant_id, EXCLUDED.project_id,"
                " EXCLUDED.set_by, now())",
                (name, None if after.parent == ROOT else after.parent, after.weight, Jsonb(dict(after.quota)),
                 Jsonb(dict(after.limit)), after.half_life_s, after.tenant, after.project, actor),
            )  # fmt: skip
            await record(
                session, "queue", name, "made" if before is None else "set", actor=actor, tenant_id=after.tenant,
                project_id=after.project, sentence=change_text(before, after),
            )  # fmt: skip

    async def remove(self, name: str, *, actor: str) -> None:
        """Take a queue away that nobody is in. Raises NotFound, Conflict."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            await session.execute("LOCK TABLE queues IN SHARE ROW EXCLUSIVE MODE")
            tree = await load_tree(session)
            queue = tree.by_name.get(name)
            if queue is None or name in BY_THEMSELVES:
                raise NotFound("queue", f"{name}{_nearest(name, [one.name for one in tree.queues])}")
            below = [one.name for one in tree.below(name)]
            if below:
                raise Conflict(
                    f"queues hang below {name}: {', '.join(below)}; remove them first, or hang them elsewhere"
                )
            live = await fetch_one(
                session,
                "SELECT count(*) AS runs, min(name) AS name FROM runs WHERE queue = %s"
                " AND state NOT IN ('succeeded', 'failed', 'cancelled')",
                (name,),
            )
            if live is not None and live["runs"]:
                raise Conflict(
                    f"{live['runs']} runs wait or run in {name}, {live['name']} among them: let them end, or stop them"
                )
            await session.execute("DELETE FROM queues WHERE name = %s", (name,))
            await record(
                session,
                "queue",
                name,
                "removed",
                actor=actor,
                tenant_id=queue.tenant,
                project_id=queue.project,
            )

    async def refuse_missing(self, scope: Scope, project: tuple[TenantId, ProjectId], name: str) -> None:
        """Raises Refused where runs of the project cannot wait in that queue, with the nearest in which they can."""
        if name == DEFAULT_QUEUE:
            return
        async with self._truth.transaction(scope) as session:
            tree = await load_tree(session)
        usable = [
            queue
            for queue in tree.queues
            if queue.tenant in (None, project[0]) and queue.project in (None, project[1])
        ]
        leaves = [queue.name for queue in usable if not tree.below(queue.name)]
        if name in leaves:
            return
        if any(queue.name == name for queue in usable):
            below = [queue.name for queue in tree.below(name) if queue in usable]
            choice = f": name one of {', '.join(below)}" if below else ""
            raise Refused(f"queue: runs wait in the queues below {name}, not in {name} itself{choice}")
        raise Refused(f"queue: there is no queue {name} here{_nearest(name, [*leaves, DEFAULT_QUEUE])}")

    async def _with_owner(self, session: Session, before: Queue | None, setting: Setting) -> Setting:
        """The same setting with the ids of tenant and project instead of their names."""
        tenant_id = None if before is None else before.tenant
        if setting.tenant is not None:
            found = await fetch_one(
                session,
                "SELECT tenant_id FROM tenants WHERE NOT house AND (name = %(name)s OR tenant_id = %(name)s)",
                {"name": setting.tenant},
            )
            if found is None:
                raise NotFound("tenant", setting.tenant)
            tenant_id = found["tenant_id"]
            setting = replace(setting, tenant=tenant_id)
        if setting.project is not None:
            if tenant_id is None:
                raise Refused("a project is of a tenant: say of which one the queue is")
            found = await fetch_one(
                session,
                "SELECT project_id FROM projects WHERE tenant_id = %s AND name = %s",
                (tenant_id, setting.project),
            )
            if found is None:
                raise NotFound("project", setting.project)
            setting = replace(setting, project=found["project_id"])
        return setting


def _queue_of(row: Mapping[str, Any]) -> Queue:
    return Queue(
        name=row["name"],
        parent=row["parent"] or ROOT,
        weight=row["weight"],
        quota=row["quota"],
        limit=row["limits"],
        half_life_s=row["half_life_s"],
        tenant=row["tenant_id"],
        project=row["project_id"],
    )


def _row_of(queue: Queue, within: Occupancy) -> Row:
    return {
        "name": queue.name,
        "parent": queue.parent,
        "weight": queue.weight,
        "waiting": within.live.waiting,
        "running": within.live.running,
        "models": [
            {
                "model": model,
                "quota": queue.quota.get(model),
                "limit": queue.limit.get(model),
                "held": round(within.held.get(model, 0)),
                "spot": round(within.spot.get(model, 0)),
                "usage_accelerator_h": within.usage_s.get(model, 0.0) / 3600,
            }
            for model in sorted({*queue.quota, *queue.limit, *within.models})
        ],
    }


def _promised_text(tree: QueueTree, queue: Queue, installed: Mapping[str, int]) -> str | None:
    """Where a queue has part in a promise of more than there is."""
    over = [
        f"{promised} {model}, of which {installed.get(model, 0)} are in service"
        for model in sorted(queue.quota)
        if queue.quota[model] and (promised := tree.guaranteed(model)) > installed.get(model, 0)
    ]
    return f"the quotas of all queues come to {' and '.join(over)}" if over else None


def _by_leaf(rows: Iterable[Mapping[str, Any]]) -> Amounts:
    amounts: dict[str, dict[str, float]] = {}
    for row in rows:
        of = amounts.setdefault(leaf_of(row["tenant_id"], row["queue"]), {})
        of[row["model"]] = of.get(row["model"], 0.0) + float(row["amount"])
    return amounts


async def _names(session: Session, query: str) -> dict[str, str]:
    return {row["id"]: row["name"] for row in await fetch_all(session, query)}


def _nearest(name: str, known: Collection[str]) -> str:
    """The end of a sentence that says what may have been meant."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    shown = sorted(known)[:8]
    return (
        f"; there are {', '.join(shown)}{' and others' if len(known) > len(shown) else ''}" if shown else ""
    )
