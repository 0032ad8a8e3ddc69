"""Extending the leases of a run: it may go on longer while nothing is booked behind it.

What is added makes way for what is booked afterwards: the first end is kept (`leases.firm_until`), and whoever asks for
the future is weighed against that alone.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import RunId, TenantId
from baseai.scheduling.booked.postgres.rows import load_booked, take_turns
from baseai.scheduling.booked.sentence import behind_sentence, instant_text
from baseai.scheduling.oversold import behind
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.demand import ModelsMatching, UnknownAccelerator, demand_of
from baseai.workloads.run import RunState
from baseai.workloads.spec import RunSpec

LONGEST = timedelta(days=366)  # of one lease, from its grant
LEAST_S = 60
EXTENDABLE = (RunState.STARTING, RunState.RUNNING, RunState.RECOVERING)
Row = Mapping[str, Any]


class Extensions:
    """Who goes on longer."""

    def __init__(self, truth: Truth, models_matching: ModelsMatching) -> None:
        self._truth = truth
        self._models_matching = models_matching

    async def extend(self, scope: Scope, run_id: str, by_s: int) -> datetime:
        """Move the end of a run's leases on by so much; the new end.

        Raises NotFound, Conflict where the run holds none, Refused with what is booked behind it.
        """
        if by_s < LEAST_S:
            raise Refused("that is less than a minute: write how much longer, like 6h")
        async with self._truth.transaction(Scope(tenant_id=None, actor=scope.actor)) as session:
            await take_turns(session)
            run = await fetch_one(session, "SELECT * FROM runs WHERE run_id = %s FOR UPDATE", (run_id,))
            if run is None or scope.tenant_id not in (None, run["tenant_id"]):
                raise NotFound("run", run_id)
            leases = await fetch_all(
                session,
                "SELECT l.*, a.stop FROM leases l JOIN attempts a USING (run_id, attempt_no)"
                " WHERE l.run_id = %s AND l.state <> 'released' ORDER BY l.lease_id FOR UPDATE OF l",
                (run_id,),
            )
            if run["state"] not in EXTENDABLE or not leases:
                raise Conflict(
                    f"{run['name']} is {run['state']}: only a run that is under way can be extended"
                )
            if any(lease["stop"] for lease in leases):
                raise Conflict(f"{run['name']} is being stopped, and is not extended any more")
            ends_at = min(lease["ends_at"] for lease in leases)
            until_at: datetime = ends_at + timedelta(seconds=by_s)
            if until_at - min(lease["granted_at"] for lease in leases) > LONGEST:
                raise Refused(
                    "a lease of more than a year is not given: submit another run that goes on from there"
                )
            await self._refuse_in_the_way(session, run, leases, ends_at, until_at, scope.tenant_id)
            await session.execute(
                "UPDATE leases SET firm_until = coalesce(firm_until, ends_at), ends_at = %s"
                " WHERE lease_id = ANY(%s)",
                (until_at, [lease["lease_id"] for lease in leases]),
            )
            await session.execute(
                "UPDATE lease_accelerators SET during = tstzrange(lower(during), %s) WHERE lease_id = ANY(%s)",
                (until_at, [lease["lease_id"] for lease in leases]),
            )
            await session.execute(
                "UPDATE nodes SET desired_version = desired_version + 1 WHERE node_id = ANY(%s)",
                (sorted({lease["node_id"] for lease in leases}),),
            )
            await record(
                session, "run", run_id, "extend", actor=scope.actor, tenant_id=run["tenant_id"],
                project_id=run["project_id"], sentence=f"its leases end at {instant_text(until_at.timestamp())}",
            )  # fmt: skip
        return until_at

    async def _refuse_in_the_way(
        self, session: Session, run: Row, leases: list[dict[str, Any]], ends_at: datetime, until_at: datetime,
        tenant_id: str | None,
    ) -> None:  # fmt: skip
        booked = await load_booked(session)
        found = behind(run["run_id"], until_at.timestamp(), booked.calendar)
        if found is not None:
            raise Refused(behind_sentence(run["name"], found, ends_at.timestamp(), tenant_id))
        models = {lease["model"] for lease in leases}
        waiting = await fetch_all(
            session,
            "SELECT * FROM runs WHERE state = 'queued' AND (wait->>'latest_at')::timestamptz < %s"
            " ORDER BY (wait->>'latest_at')::timestamptz, run_id",
            (until_at,),
        )
        for row in waiting:
            if models.intersection(self._models_of(row)):
                starts = datetime.fromisoformat(row["wait"]["latest_at"])
                raise Refused(
                    f"{run['name']} cannot go on so long: another run waits for {', '.join(sorted(models))}, and was"
                    f" told that it starts by {instant_text(starts.timestamp())}"
                )

    def _models_of(self, row: Row) -> tuple[str, ...]:
        try:
            spec = RunSpec.from_json(row["spec"])
            demand = demand_of(spec, RunId(row["run_id"]), TenantId(row["tenant_id"]), self._models_matching)
        except UnknownAccelerator:
            return ()
        return () if demand.spot or demand.yields else demand.models
