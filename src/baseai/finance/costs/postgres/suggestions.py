"""Suggestions in the truth: made from how things sell, replaced by newer ones, applied or declined by an operator.

Invariant: at most one proposal stands for a model, a site and a term; its state moves once, and who moved it is named.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from baseai.finance.costs.suggestion import Suggested
from baseai.ground.fault import Conflict, NotFound
from baseai.ground.identity import mint
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

SHOWN = (
    "suggestion_id, model, site_id, term, currency, now_rate, rate, floor_rate, rule, facts, sentence, made_at, state,"
    " settled_at, settled_by, price_id, list_id"
)
# What waiting runs ask for of each model: those that could have it, whether they could have another as well.
WAITING = """
SELECT m.model, sum(GREATEST(1, COALESCE((r.spec->>'nodes')::integer, 1)) * GREATEST(1, COALESCE(
  (r.spec#>>'{resources,gpu,0,count_least}')::integer, (r.spec#>>'{resources,cpu}')::integer, 1)))::bigint
  AS accelerators
FROM runs r JOIN LATERAL (
  SELECT models FROM start_estimates e WHERE e.run_id = r.run_id AND e.fate IS NULL
  ORDER BY asked_at DESC LIMIT 1) e ON true
CROSS JOIN LATERAL unnest(e.models) AS m (model) WHERE r.state = 'queued' GROUP BY m.model
"""
IN_SERVICE = """
SELECT a.model, count(*) AS accelerators FROM accelerators a JOIN nodes n USING (node_id)
WHERE a.state = 'in_service' AND NOT n.simulated GROUP BY a.model
"""


class Suggestions:
    """Suggested prices."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def waiting(self) -> Mapping[str, Decimal]:
        """Accelerators that waiting runs ask for as a share of those in service, by model."""
        async with self._truth.transaction() as session:
            asked = {row["model"]: row["accelerators"] for row in await fetch_all(session, WAITING)}
            return {
                row["model"]: Decimal(asked.get(row["model"], 0)) / row["accelerators"]
                for row in await fetch_all(session, IN_SERVICE)
            }

    async def propose(self, found: Sequence[Suggested], scope: Scope) -> Sequence[Mapping[str, Any]]:
        """Write them: from now on these are what is proposed. One that says the same still keeps its id."""
        async with self._truth.transaction(scope) as session:
            await session.execute("SELECT pg_advisory_xact_lock(hashtextextended('suggestions', 0))")
            lines = [f"{one.selling.model}@{one.selling.site_id}@{one.selling.term.value}" for one in found]
            await session.execute(
                "UPDATE suggestions SET state = 'superseded', settled_at = now(), settled_by = %s"
                " WHERE state = 'proposed' AND model || '@' || site_id || '@' || term <> ALL(%s::text[])",
                (scope.actor, lines),
            )
            for one in found:
                await _propose(session, one, scope)
            return await fetch_all(
                session,
                f"SELECT {SHOWN} FROM suggestions WHERE state = 'proposed' ORDER BY model, site_id, term",  # noqa: S608 - constants
            )

    async def list(self, state: str | None = None) -> Sequence[Mapping[str, Any]]:
        async with self._truth.transaction() as session:
            return await fetch_all(
                session,
                f"SELECT {SHOWN} FROM suggestions WHERE %(state)s::text IS NULL OR state = %(state)s"  # noqa: S608 - constants
                " ORDER BY made_at DESC, suggestion_id LIMIT 500",
                {"state": state},
            )

    async def find(self, suggestion_id: str) -> Mapping[str, Any]:
        """Raises NotFound."""
        async with self._truth.transaction() as session:
            row = await fetch_one(
                session,
                f"SELECT {SHOWN} FROM suggestions WHERE suggestion_id = %s",  # noqa: S608 - constants
                (suggestion_id,),
            )
        if row is None:
            raise NotFound("suggestion", suggestion_id)
        return row

    async def settle(
        self,
        suggestion_id: str,
        state: str,
        scope: Scope,
        *,
        price_id: str | None = None,
        list_id: str | None = None,
    ) -> Mapping[str, Any]:
        """Applied, with the price that follows, or declined. Raises Conflict when somebody was first."""
        async with self._truth.transaction(scope) as session:
            done = await session.execute(
                "UPDATE suggestions SET state = %s, settled_at = now(), settled_by = %s, price_id = %s, list_id = %s"
                " WHERE suggestion_id = %s AND state = 'proposed'",
                (state, scope.actor, price_id, list_id, suggestion_id),
            )
            if not done.rowcount:
                raise Conflict(f"{suggestion_id} is settled already; look at `baseai price suggest` again")
            await record(
                session, "suggestion", suggestion_id, state, actor=scope.actor, from_state="proposed", to_state=state
            )  # fmt: skip
        return await self.find(suggestion_id)


async def _propose(session: Session, one: Suggested, scope: Scope) -> None:
    selling = one.selling
    standing = await fetch_one(
        session,
        "SELECT suggestion_id, rate, now_rate FROM suggestions"
        " WHERE model = %s AND site_id = %s AND term = %s AND state = 'proposed'",
        (selling.model, selling.site_id, selling.term.value),
    )
    now_rate = selling.rate or Decimal(0)
    if standing is not None:
        if (standing["rate"], standing["now_rate"]) == (one.rate, now_rate):
            return
        await session.execute(
            "UPDATE suggestions SET state = 'superseded', settled_at = now(), settled_by = %s WHERE suggestion_id = %s",
            (scope.actor, standing["suggestion_id"]),
        )
    await session.execute(
        "INSERT INTO suggestions (suggestion_id, model, site_id, term, currency, now_rate, rate, floor_rate, rule,"
        " facts, sentence) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            mint("sug"), selling.model, selling.site_id, selling.term.value, selling.currency, now_rate, one.rate,
            selling.variable_cost, one.rule, json.dumps(selling.facts()), one.sentence,
        ),
    )  # fmt: skip
