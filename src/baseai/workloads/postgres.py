"""Runs and their files in PostgreSQL: submitting, asking to stop, finding by name."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import ProjectId, RunId, TenantId
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.reason import Reason
from baseai.workloads.run import ENDED, RunState
from baseai.workloads.spec import RunSpec
from baseai.workloads.upload import Upload

Row = dict[str, Any]


class Runs:
    """What tenants submitted."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def submit(
        self,
        scope: Scope,
        project: tuple[TenantId, ProjectId],
        run_id: RunId,
        spec: RunSpec,
        uploads: Sequence[Upload],
        *,
        submitted_by: str,
        service: tuple[str, int] | None = None,
    ) -> Row:
        """Put a run into the queue. Raises Refused where a file or a secret it names is not there.

        service: whose replica it is, and of which version.
        """
        tenant_id, project_id = project
        async with self._truth.transaction(scope) as session:
            await self._all_there(session, project, spec, uploads)
            row = await fetch_one(
                session,
                "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, files, priority, state, reason,"
                " submitted_by, service_id, version_no) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'queued', 'submitted',"
                " %s, %s, %s) RETURNING *",
                (run_id, tenant_id, project_id, spec.name, spec.type, Jsonb(spec.to_json()),
                 Jsonb([{"path": u.path, "digest": u.digest, "bytes": u.bytes, "mode": u.mode} for u in uploads]),
                 spec.priority, submitted_by, *(service or (None, None))),
            )  # fmt: skip
            await record(
                session, "run", run_id, "submit", actor=scope.actor, tenant_id=tenant_id, project_id=project_id,
                to_state=RunState.QUEUED.value, reason=Reason.SUBMITTED.value,
            )  # fmt: skip
        assert row is not None
        return dict(row)

    async def refuse_missing(
        self, scope: Scope, project: tuple[TenantId, ProjectId], spec: RunSpec, uploads: Sequence[Upload]
    ) -> None:
        """Raises Refused where a file or a secret that the run names is not there."""
        async with self._truth.transaction(scope) as session:
            await self._all_there(session, project, spec, uploads)

    async def _all_there(
        self, session: Session, project: tuple[TenantId, ProjectId], spec: RunSpec, uploads: Sequence[Upload]
    ) -> None:
        digests = {upload.digest for upload in uploads}
        there = {
            row["digest"]
            for row in await fetch_all(
                session,
                "SELECT digest FROM files WHERE tenant_id = %s AND digest = ANY(%s)",
                (project[0], sorted(digests)),
            )
        }
        lost = sorted(upload.path for upload in uploads if upload.digest not in there)
        if lost:
            raise Refused(
                f"the file {lost[0]} was not uploaded: submit with `baseai apply`, which uploads it"
            )
        known = {
            row["name"]
            for row in await fetch_all(
                session, "SELECT name FROM secrets WHERE project_id = %s", (project[1],)
            )
        }
        missing = sorted(set(spec.secrets) - known)
        if missing:
            raise Refused(
                f"there is no secret {missing[0]}: set it first with `baseai secret set {missing[0]}`"
            )

    async def find(self, scope: Scope, name: str) -> Row:
        """The run of that id, or the newest of that name, as far as `scope` sees. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(
                session,
                "SELECT * FROM runs WHERE run_id = %(name)s OR name = %(name)s"
                " ORDER BY run_id = %(name)s DESC, submitted_at DESC LIMIT 1",
                {"name": name},
            )
        if row is None:
            raise NotFound("run", name)
        return dict(row)

    async def ask_to_stop(self, scope: Scope, run_id: str, reason: Reason, *, why: str | None = None) -> Row:
        """A queued run is cancelled at once; of a running one the end is begun.

        why: the asker's own words, for the event. Raises NotFound, and Conflict if it has ended.
        """
        async with self._truth.transaction(scope) as session:
            run = await fetch_one(session, "SELECT * FROM runs WHERE run_id = %s FOR UPDATE", (run_id,))
            if run is None:
                raise NotFound("run", run_id)
            if RunState(run["state"]) in ENDED:
                raise Conflict(f"{run['name']} has {run['state']} already")
            if run["state"] == RunState.QUEUED:
                run = await fetch_one(
                    session,
                    "UPDATE runs SET state = 'cancelled', reason = %s, ended_at = now(), wait = NULL"
                    " WHERE run_id = %s AND state = 'queued' RETURNING *",
                    (reason.value, run_id),
                )
                assert run is not None
                await record(
                    session, "run", run_id, "cancel", actor=scope.actor, tenant_id=run["tenant_id"],
                    project_id=run["project_id"], from_state="queued", to_state="cancelled", reason=reason.value,
                    sentence=why,
                )  # fmt: skip
            elif run["stop_reason"] is None:
                run = await fetch_one(
                    session,
                    "UPDATE runs SET stop_reason = %s WHERE run_id = %s RETURNING *",
                    (reason.value, run_id),
                )
                assert run is not None
                await record(
                    session, "run", run_id, "ask_to_stop", actor=scope.actor, tenant_id=run["tenant_id"],
                    project_id=run["project_id"], reason=reason.value, sentence=why,
                )  # fmt: skip
        assert run is not None
        return dict(run)

    # ---- files

    async def has_file(self, scope: Scope, tenant_id: TenantId, digest: str) -> bool:
        async with self._truth.transaction(scope) as session:
            return await fetch_one(
                session, "SELECT FROM files WHERE tenant_id = %s AND digest = %s", (tenant_id, digest)
            ) is not None  # fmt: skip

    async def note_file(
        self, scope: Scope, project: tuple[TenantId, ProjectId], digest: str, size_bytes: int
    ) -> None:
        async with self._truth.transaction(scope) as session:
            await session.execute(
                "INSERT INTO files (tenant_id, project_id, digest, bytes) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (project[0], project[1], digest, size_bytes),
            )

    async def file_of_node(self, node_id: str, digest: str) -> bool:
        """Whether a run that holds a lease on this node brings this file."""
        async with self._truth.transaction() as session:
            return await fetch_one(
                session,
                "SELECT FROM leases l JOIN runs r USING (run_id) WHERE l.node_id = %s AND l.state <> 'released'"
                " AND r.files @> %s LIMIT 1",
                (node_id, Jsonb([{"digest": digest}])),
            ) is not None  # fmt: skip

    # ---- answers that a repeated request gets again

    async def earlier_answer(self, key_id: str, idempotency_key: str, body: bytes) -> Row | None:
        """What was answered to this key before, or None. Raises Refused if it came with another body then."""
        async with self._truth.transaction() as session:
            row = await fetch_one(
                session,
                "SELECT * FROM idempotency WHERE key_id = %s AND idempotency_key = %s",
                (key_id, idempotency_key),
            )
        if row is None:
            return None
        if bytes(row["digest"]) != hashlib.sha256(body).digest():
            raise Refused("this Idempotency-Key came with another body before: use a new one")
        return dict(row)

    async def keep_answer(
        self, key_id: str, idempotency_key: str, body: bytes, status: int, answer: str
    ) -> None:
        async with self._truth.transaction() as session:
            await session.execute("DELETE FROM idempotency WHERE at < now() - interval '2 days'")
            await session.execute(
                "INSERT INTO idempotency (key_id, idempotency_key, digest, status, response)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (key_id, idempotency_key, hashlib.sha256(body).digest(), status, Jsonb(json.loads(answer))),
            )
