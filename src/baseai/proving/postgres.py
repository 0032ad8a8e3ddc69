"""Burn-ins and figures in PostgreSQL: asking for what is due, taking results, moving nodes on.

Every step may be killed between any two statements and be beside another copy of itself: a burn-in's run has its id
before it is submitted, a verdict is given once, and a node moves only from the state it was judged in.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from psycopg.types.json import Jsonb

from baseai.fleet.node import NodeEvent, NodeState
from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import NodeId, ProjectId, RunId, TenantId, mint
from baseai.proving.due import (
    IDLE_FOR_MIN,
    OCCASION_OF,
    PERIODIC_MOST,
    BurnInSeen,
    Due,
    NodeSeen,
    Occasion,
    Verdict,
    due,
    move_of,
)
from baseai.proving.standing import standing_of
from baseai.proving.verdict import Measured, Peaks, failure_of, measured
from baseai.proving.vitals import Watched, vitals_of
from baseai.truth.history import record
from baseai.truth.session import PLATFORM, Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.burn import BurnIn
from baseai.workloads.burn_in.figure import Figure
from baseai.workloads.burn_in.profile import PROFILES
from baseai.workloads.reason import Reason
from baseai.workloads.run import ENDED, RunState
from baseai.workloads.spec import RunSpec, burn_in_spec
from baseai.workloads.upload import Upload

log = logging.getLogger(__name__)

ACTOR = "platform"
BURN_INS_SHOWN = 20
VITALS_WITHIN_S = 30.0  # after a test's end; samples that come later are not waited for
GONE = (NodeState.QUARANTINED, NodeState.RMA, NodeState.RETIRED)  # nothing there is tested any more
UNDER_TEST = tuple(OCCASION_OF)
TESTABLE = (*UNDER_TEST, NodeState.READY)
LOOK_AT_READY = timedelta(minutes=1)
Row = dict[str, Any]


class RunsShelf(Protocol):
    """What testing needs of the record of runs."""

    async def submit(
        self, scope: Scope, project: tuple[TenantId, ProjectId], run_id: RunId, spec: RunSpec,
        uploads: Sequence[Upload], *, submitted_by: str,
    ) -> Row: ...  # fmt: skip

    async def ask_to_stop(self, scope: Scope, run_id: str, reason: Reason, *, why: str | None) -> Row: ...


class HouseKeeper(Protocol):
    """What testing needs of tenancy: whose runs its own are."""

    async def house(self) -> tuple[TenantId, ProjectId]: ...


class Steering(Protocol):
    """What testing needs of the fleet."""

    async def steer(self, name: str, event: NodeEvent, *, actor: str, reason: str | None) -> Row: ...


class Vitals(Protocol):
    """What testing needs of telemetry."""

    async def watched(self, serial: str, from_at: datetime, until_at: datetime) -> Watched | None:
        """The samples of one accelerator over a time; None where telemetry gives no answer."""


NODES = """
SELECT n.node_id, n.name, n.state,
  NOT EXISTS (SELECT FROM leases l WHERE l.node_id = n.node_id AND l.state <> 'released')
    AND NOT EXISTS (SELECT FROM leases l WHERE l.node_id = n.node_id
      AND l.released_at > now() - make_interval(mins => %(idle_min)s)) AS idle,
  (SELECT max(event_no) FROM events e WHERE e.subject_id = n.node_id AND e.subject_kind = 'node'
    AND e.to_state = n.state) AS stay,
  coalesce((SELECT jsonb_object_agg(model, held) FROM (SELECT model, count(*) AS held FROM accelerators a
    WHERE a.node_id = n.node_id AND a.state = 'in_service' GROUP BY model) m), '{}') AS models
FROM nodes n WHERE n.state = ANY(%(states)s) AND (%(name)s::text IS NULL OR %(name)s IN (n.name, n.node_id))
ORDER BY n.node_id
"""
UNTAKEN = """
SELECT b.*, n.simulated, r.state AS run_state, r.reason, r.sentence AS run_sentence, r.result, r.ended_at,
  now() AS now, l.lease_id, coalesce(l.observed_from, r.started_at) AS from_at, coalesce(l.observed_until, r.ended_at)
    AS until_at
FROM burn_ins b JOIN runs r USING (run_id) JOIN nodes n ON n.node_id = b.node_id
LEFT JOIN leases l ON l.run_id = r.run_id AND l.attempt_no = r.attempt_no
WHERE b.verdict IS NULL AND r.state = ANY(%(ended)s) ORDER BY r.ended_at LIMIT 100
"""
NEWEST = """
SELECT DISTINCT ON (f.test, f.variant, f.accelerator_no, f.model) f.*, b.profile, a.accelerator_id, a.serial,
  a.device_index
FROM figures f JOIN burn_ins b USING (run_id) LEFT JOIN accelerators a USING (accelerator_no)
WHERE f.node_id = %(node_id)s
ORDER BY f.test, f.variant, f.accelerator_no, f.model, f.at DESC, f.value DESC NULLS LAST
"""
# Of each accelerator (of each node, where a figure is of all of them) the newest test counts, and of a bus its best
# size, as in NEWEST.
FLEET_MEDIANS = """
SELECT model, test, variant, profile, count(*) AS like_count,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS median
FROM (
  SELECT DISTINCT ON (f.model, f.test, f.variant, b.profile, f.accelerator_no, f.node_id) f.*, b.profile
  FROM figures f JOIN burn_ins b USING (run_id) WHERE f.state = 'value' AND f.model = ANY(%(models)s)
  ORDER BY f.model, f.test, f.variant, b.profile, f.accelerator_no, f.node_id, f.at DESC, f.value DESC
) newest GROUP BY model, test, variant, profile
"""
OWN_MEDIANS = """
SELECT accelerator_no, model, test, variant, profile, count(*) AS like_count,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS median
FROM (
  SELECT f.accelerator_no, f.model, f.test, f.variant, b.profile, f.run_id, max(f.value) AS value,
    row_number() OVER (PARTITION BY f.accelerator_no, f.model, f.test, f.variant, b.profile
      ORDER BY max(f.at) DESC, f.run_id) AS age
  FROM figures f JOIN burn_ins b USING (run_id) WHERE f.node_id = %(node_id)s AND f.state = 'value'
  GROUP BY 1, 2, 3, 4, 5, 6
) each_run WHERE age > 1 GROUP BY accelerator_no, model, test, variant, profile
"""


class Proving:
    """Tests of nodes, for the platform's loop and for doors."""

    def __init__(
        self,
        truth: Truth,
        *,
        runs: RunsShelf,
        house: HouseKeeper,
        fleet: Steering,
        peaks: Peaks,
        vitals: Vitals | None = None,
    ) -> None:
        self._truth = truth
        self._runs = runs
        self._house = house
        self._fleet = fleet
        self._peaks = peaks
        self._vitals = vitals
        self._looked_at: datetime | None = None  # at ready nodes

    async def step(self) -> int:
        """Take what has ended, move nodes on, ask for what is due; how many things were done."""
        done = await self._take() + await self._call_off()
        now = await self._now()
        # There may be thousands of ready nodes, and little becomes of them.
        states = UNDER_TEST
        if done or self._looked_at is None or now - self._looked_at > LOOK_AT_READY:
            states, self._looked_at = TESTABLE, now
        nodes = await self._nodes(states)
        for node in nodes:
            move = move_of(node)
            if move is not None:
                done += await self._move(move.node_id, move.event, move.sentence)
        wanted = [one for node in nodes for one in due(node, now)]
        periodic = [one for one in wanted if one.occasion is Occasion.PERIODIC]
        left = max(0, PERIODIC_MOST - await self._periodic_open()) if periodic else 0
        for one in [*(one for one in wanted if one.occasion is not Occasion.PERIODIC), *periodic[:left]]:
            done += await self._ask_once(one)
        return done + await self._submit()

    async def _periodic_open(self) -> int:
        async with self._truth.transaction() as session:
            row = await fetch_one(
                session,
                "SELECT count(*) AS open FROM burn_ins WHERE verdict IS NULL AND occasion = 'periodic'",
            )
        assert row is not None
        return int(row["open"])

    # ---- asking

    async def ask(self, node: str, profile: str, *, actor: str) -> list[Row]:
        """Test all accelerators of a node; one burn-in for each model.

        Raises NotFound, Refused for a profile that is none, Conflict in a state in which nothing is tested and
        while a test is under way.
        """
        if profile not in PROFILES:
            raise Refused(f"there is no profile {profile!r}: choose one of {', '.join(PROFILES)}")
        found = await self._nodes(TESTABLE, node)
        if not found:
            raise await self._why_not(node)
        [seen] = found
        if not seen.tested_models:
            raise Conflict(f"nothing of {node} is in service, so there is nothing to test")
        asked = [
            await self._insert(
                Due(
                    node_id=seen.node_id,
                    model=model,
                    accelerators=seen.models[model],
                    occasion=Occasion.ASKED,
                    profile=profile,
                    stay=seen.stay,
                ),
                actor=actor,
            )
            for model in seen.tested_models
        ]
        if None in asked:
            raise Conflict(f"a test of {node} is under way; `baseai node figures {node}` shows it")
        await self._submit()
        return [row for row in await self._burn_ins(seen.node_id) if row["run_id"] in asked]

    async def _why_not(self, node: str) -> NotFound | Conflict:
        async with self._truth.transaction() as session:
            row = await fetch_one(
                session, "SELECT name, state FROM nodes WHERE name = %s OR node_id = %s", (node, node)
            )
        if row is None:
            return NotFound("node", node)
        return Conflict(
            f"{row['name']} is {row['state']}, and a node is tested while it is {', '.join(TESTABLE)}"
        )

    async def _ask_once(self, one: Due) -> int:
        """Ask for what is due, unless another copy of this loop has, or it is no longer due."""
        made = await self._insert(one, actor=ACTOR, once=one.occasion is not Occasion.PERIODIC)
        return 0 if made is None else 1

    async def _insert(self, one: Due, *, actor: str, once: bool = False) -> str | None:
        """The run of a new burn-in; None where one is under way or, with `once`, was in this stay."""
        run_id = mint("run")
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            # Whoever asks for a test of a node takes turns here.
            await session.execute("SELECT FROM nodes WHERE node_id = %s FOR UPDATE", (one.node_id,))
            made = await fetch_one(
                session,
                "INSERT INTO burn_ins (run_id, node_id, model, occasion, profile, stay, asked_by)"
                " SELECT %(run)s, %(node)s, %(model)s, %(occasion)s, %(profile)s, %(stay)s, %(actor)s"
                " WHERE NOT EXISTS (SELECT FROM burn_ins WHERE node_id = %(node)s AND model = %(model)s AND ("
                "   verdict IS NULL OR %(once)s AND stay = %(stay)s)) RETURNING run_id",
                {
                    "run": run_id,
                    "node": one.node_id,
                    "model": one.model,
                    "occasion": one.occasion.value,
                    "profile": one.profile,
                    "stay": one.stay,
                    "actor": actor,
                    "once": once,
                },
            )
        return None if made is None else run_id

    async def _submit(self) -> int:
        """Give every burn-in its run; one whose asker died in between as well."""
        async with self._truth.transaction() as session:
            rows = await fetch_all(
                session,
                "SELECT b.*, n.name, (SELECT count(*) FROM accelerators a WHERE a.node_id = b.node_id"
                " AND a.model = b.model AND a.state = 'in_service') AS accelerators"
                " FROM burn_ins b JOIN nodes n USING (node_id) WHERE b.verdict IS NULL"
                " AND NOT EXISTS (SELECT FROM runs r WHERE r.run_id = b.run_id) ORDER BY b.asked_at",
            )
        if not rows:
            return 0
        project = await self._house.house()
        for row in rows:
            if not row["accelerators"]:
                await self._give_up(row["run_id"], f"no {row['model']} of it is in service any more")
                continue
            spec = burn_in_spec(
                f"burn-in-{row['name']}",
                BurnIn(
                    node_id=NodeId(row["node_id"]),
                    model=row["model"],
                    accelerators=row["accelerators"],
                    profile=row["profile"],
                ),
                max_duration_s=PROFILES[row["profile"]].max_duration_s,
            )
            await self._runs.submit(
                PLATFORM, project, RunId(row["run_id"]), spec, (), submitted_by=row["asked_by"]
            )
            log.info("%s of %s: %s", row["occasion"], row["name"], row["run_id"])
        return len(rows)

    async def _give_up(self, run_id: str, why: str) -> None:
        async with self._truth.transaction() as session:
            await session.execute(
                "UPDATE burn_ins SET verdict = 'void', sentence = %s, judged_at = now()"
                " WHERE run_id = %s AND verdict IS NULL",
                (why, run_id),
            )

    # ---- taking results

    async def _take(self) -> int:
        async with self._truth.transaction() as session:
            rows = await fetch_all(session, UNTAKEN, {"ended": sorted(state.value for state in ENDED)})
        taken = 0
        for row in rows:
            taken += await self._take_one(row)
        return taken

    async def _take_one(self, row: Row) -> int:
        async with self._truth.transaction() as session:
            devices = await fetch_all(
                session,
                "SELECT a.accelerator_no, a.accelerator_id, a.serial FROM lease_accelerators la"
                " JOIN accelerators a USING (accelerator_no) WHERE la.lease_id = %s ORDER BY a.accelerator_no",
                (row["lease_id"],),
            )
        figures = _figures_in(row)
        if figures:
            vitals = await self._load_vitals(row, devices)
            if vitals is None:
                return 0  # looked at again in a moment
            figures += vitals
        found = measured(figures, row["model"], self._peaks)
        verdict, sentence = _verdict_on(row, found)
        numbers = {device["accelerator_id"]: device["accelerator_no"] for device in devices}
        async with self._truth.transaction() as session:
            given = await fetch_one(
                session,
                "UPDATE burn_ins SET verdict = %s, sentence = %s, judged_at = now()"
                " WHERE run_id = %s AND verdict IS NULL RETURNING run_id",
                (verdict.value, sentence, row["run_id"]),
            )
            if given is None:
                return 0
            for one in found:
                await _keep(session, row, one, numbers)
            await record(
                session, "node", row["node_id"], f"burn_in_{verdict.value}", actor=ACTOR, sentence=sentence
            )
        log.info(
            "%s of %s: %s%s", row["run_id"], row["node_id"], verdict, f", {sentence}" if sentence else ""
        )
        return 1

    async def _load_vitals(self, row: Row, devices: Sequence[Row]) -> list[Figure] | None:
        """What telemetry saw; None while the end of the test may still be on its way."""
        if self._vitals is None or row["from_at"] is None:
            return [one for device in devices for one in vitals_of(device["accelerator_id"], None)]
        found: list[Figure] = []
        for device in devices:
            watched = await self._vitals.watched(device["serial"], row["from_at"], row["until_at"])
            found += vitals_of(device["accelerator_id"], watched)
        waited_s = (row["now"] - row["ended_at"]).total_seconds()
        if row["profile"] != "quick" and waited_s < VITALS_WITHIN_S:
            return None
        return found

    async def _call_off(self) -> int:
        """End the tests of nodes that have left for good, and periodic ones of nodes that are idle no longer."""
        async with self._truth.transaction() as session:
            rows = await fetch_all(
                session,
                "SELECT run_id, n.name, n.state FROM burn_ins b JOIN runs r USING (run_id)"
                " JOIN nodes n ON n.node_id = b.node_id WHERE b.verdict IS NULL AND r.stop_reason IS NULL"
                " AND (n.state = ANY(%s) AND r.state <> ALL(%s) OR b.occasion = 'periodic' AND r.state = 'queued'"
                "   AND EXISTS (SELECT FROM leases l WHERE l.node_id = b.node_id AND l.state <> 'released'))",
                ([state.value for state in GONE], sorted(state.value for state in ENDED)),
            )
        for row in rows:
            why = f"{row['name']} is {row['state']}" if row["state"] in GONE else f"{row['name']} is in use"
            await self._runs.ask_to_stop(PLATFORM, row["run_id"], Reason.STOPPED_BY_OPERATOR, why=why)
        return len(rows)

    # ---- moving nodes on

    async def _move(self, node_id: NodeId, event: NodeEvent, sentence: str) -> int:
        try:
            await self._fleet.steer(node_id, event, actor=ACTOR, reason=sentence)
        except (Conflict, NotFound) as late:  # somebody moved it meanwhile: it is judged anew
            log.info("%s", late)
            return 0
        return 1

    async def _nodes(self, states: Sequence[NodeState], name: str | None = None) -> list[NodeSeen]:
        async with self._truth.transaction() as session:
            nodes = await fetch_all(
                session,
                NODES,
                {"states": [state.value for state in states], "name": name, "idle_min": IDLE_FOR_MIN},
            )
            # The newest of each stay and the newest of all are enough, and nodes live long.
            burn_ins = await fetch_all(
                session,
                "SELECT DISTINCT ON (node_id, model, stay) * FROM burn_ins WHERE node_id = ANY(%s)"
                " ORDER BY node_id, model, stay, asked_at DESC, run_id",
                ([node["node_id"] for node in nodes],),
            )
        by_node: dict[str, list[BurnInSeen]] = {}
        for row in sorted(burn_ins, key=lambda row: (row["asked_at"], row["run_id"])):
            by_node.setdefault(row["node_id"], []).append(
                BurnInSeen(
                    model=row["model"],
                    stay=row["stay"] or 0,
                    asked_at=row["asked_at"],
                    verdict=None if row["verdict"] is None else Verdict(row["verdict"]),
                    sentence=row["sentence"],
                )
            )
        return [
            NodeSeen(
                node_id=NodeId(node["node_id"]),
                state=NodeState(node["state"]),
                stay=node["stay"] or 0,
                models=node["models"],
                idle=node["idle"],
                burn_ins=tuple(by_node.get(node["node_id"], ())),
            )
            for node in nodes
        ]

    async def _now(self) -> datetime:
        async with self._truth.transaction() as session:
            row = await fetch_one(session, "SELECT now() AS at")
        assert row is not None
        at: datetime = row["at"]
        return at

    # ---- showing

    async def figures_of(self, scope: Scope, node: str) -> Row:
        """One node's burn-ins and its newest figures, each as it stands. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(
                session,
                "SELECT node_id, name, state FROM nodes WHERE name = %s OR node_id = %s",
                (node, node),
            )
            if row is None:
                raise NotFound("node", node)
            newest = await fetch_all(session, NEWEST, {"node_id": row["node_id"]})
            models = sorted({one["model"] for one in newest})
            fleet = await fetch_all(session, FLEET_MEDIANS, {"models": models})
            own = await fetch_all(session, OWN_MEDIANS, {"node_id": row["node_id"]})
        return {
            "node": row["name"],
            "node_id": row["node_id"],
            "state": row["state"],
            "burn_ins": await self._burn_ins(row["node_id"]),
            "figures": _standing_rows(newest, fleet, own),
        }

    async def _burn_ins(self, node_id: str) -> list[Row]:
        async with self._truth.transaction() as session:
            return await fetch_all(
                session,
                "SELECT b.*, n.name AS node, r.state FROM burn_ins b JOIN nodes n USING (node_id)"
                " LEFT JOIN runs r USING (run_id) WHERE b.node_id = %s ORDER BY b.asked_at DESC, b.run_id LIMIT %s",
                (node_id, BURN_INS_SHOWN),
            )


def _figures_in(row: Row) -> list[Figure]:
    """The figures of an ended run's result; what is no figure is left out, with a word in the log."""
    if row["run_state"] != RunState.SUCCEEDED:
        return []
    found = []
    for told in (row["result"] or {}).get("figures") or ():
        try:
            found.append(Figure.from_json(told))
        except (KeyError, TypeError, ValueError) as wrong:
            log.warning("%s reported something that is no figure (%s): %s", row["run_id"], wrong, told)
    return found


def _verdict_on(row: Row, found: Sequence[Measured]) -> tuple[Verdict, str | None]:
    if row["run_state"] == RunState.CANCELLED:
        return Verdict.VOID, "the test was stopped; ask for another with `baseai node test`"
    if row["run_state"] == RunState.FAILED:
        # What cannot be tested is not thereby broken: a node without torch, say.
        verdict = Verdict.VOID if row["reason"] == Reason.SPEC_WRONG else Verdict.FAILED
        return verdict, row["run_sentence"] or f"the test ended with {row['reason']}"
    if not found:
        return Verdict.FAILED, "the test ended without a figure"
    failure = failure_of(found, row["profile"])
    return (Verdict.PASSED, None) if failure is None else (Verdict.FAILED, failure)


async def _keep(session: Session, row: Row, one: Measured, numbers: Mapping[str, int]) -> None:
    figure = one.figure
    if figure.accelerator_id is not None and figure.accelerator_id not in numbers:
        log.warning(
            "%s reported a figure of %s, which it did not lease", row["run_id"], figure.accelerator_id
        )
        return
    await session.execute(
        "INSERT INTO figures (run_id, node_id, accelerator_no, model, test, variant, size_bytes, value, unit, state,"
        " sentence, peak, ratio, origin, software, at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            row["run_id"], row["node_id"],
            None if figure.accelerator_id is None else numbers[figure.accelerator_id],
            row["model"], figure.test.value, figure.variant, figure.size_bytes, figure.value, figure.unit,
            "unsupported" if figure.value is None else "value", figure.sentence,
            None if one.ratio is None else one.peak, one.ratio,
            "simulated" if row["simulated"] else "measured",
            Jsonb((row["result"] or {}).get("software") or {}), row["ended_at"],
        ),
    )  # fmt: skip


def _standing_rows(newest: Sequence[Row], fleet: Sequence[Row], own: Sequence[Row]) -> list[Row]:
    like = {(row["model"], row["test"], row["variant"], row["profile"]): row for row in fleet}
    past = {
        (row["accelerator_no"], row["model"], row["test"], row["variant"], row["profile"]): row for row in own
    }
    rows = []
    for one in newest:
        kind = (one["model"], one["test"], one["variant"], one["profile"])
        others, before = like.get(kind), past.get((one["accelerator_no"], *kind))
        standing = standing_of(
            test=one["test"],
            value=one["value"],
            fleet_median=others["median"] if others else None,
            fleet_count=others["like_count"] if others else 0,
            own_median=before["median"] if before else None,
            own_count=before["like_count"] if before else 0,
        )
        rows.append(
            {
                **one,
                "fleet_median": standing.fleet_median,
                "fleet_ratio": standing.fleet_ratio,
                "own_median": standing.own_median,
                "own_ratio": standing.own_ratio,
                "alert": standing.alert,
            }
        )
    return sorted(rows, key=_place_of)


def _place_of(row: Row) -> tuple[str, int, str, str]:
    """By model, what is of all accelerators first, then by accelerator and test."""
    index = -1 if row["device_index"] is None else row["device_index"]
    return row["model"], index, row["test"], row["variant"]
