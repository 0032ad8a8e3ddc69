"""What tenants ask of their services, in PostgreSQL: applying a spec, scaling, promoting, rolling back, stopping.

Nothing starts or ends here: each call writes down what is wanted, and the keeper brings it about.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from psycopg.types.json import Jsonb

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import ProjectId, RunId, TenantId, mint
from baseai.serving.state import (
    SERVICE_MOVES,
    VERSION_MOVES,
    ServiceEvent,
    ServiceState,
    VersionEvent,
    VersionState,
)
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.workloads.model import model_source_of
from baseai.workloads.reason import Reason
from baseai.workloads.service import Service
from baseai.workloads.spec import RunSpec
from baseai.workloads.upload import Upload

FROM_RUN = "run:"
Row = dict[str, Any]


class RunsShelf(Protocol):
    """What services need of the record of runs."""

    async def submit(
        self, scope: Scope, project: tuple[TenantId, ProjectId], run_id: RunId, spec: RunSpec,
        uploads: Sequence[Upload], *, submitted_by: str, service: tuple[str, int] | None = None,
    ) -> Row: ...  # fmt: skip

    async def refuse_missing(
        self, scope: Scope, project: tuple[TenantId, ProjectId], spec: RunSpec, uploads: Sequence[Upload]
    ) -> None: ...

    async def ask_to_stop(
        self, scope: Scope, run_id: str, reason: Reason, *, why: str | None = None
    ) -> Row: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of a spec."""

    service_id: str
    name: str
    version_no: int
    made: bool  # the service, just now
    rolling: bool  # this version is on its way to take over


class Services:
    """What tenants want served."""

    def __init__(self, truth: Truth, runs: RunsShelf) -> None:
        self._truth = truth
        self._runs = runs

    async def apply(
        self,
        scope: Scope,
        project: tuple[TenantId, ProjectId],
        spec: RunSpec,
        uploads: Sequence[Upload],
        *,
        by: str,
    ) -> Applied:
        """A service, or another version of the one of that name, which then takes over step by step.

        The spec that serves already changes nothing; while another is taking over, it ends that.
        Raises Refused where a file, a secret or a training run that it names is not there.
        """
        await self._runs.refuse_missing(scope, project, spec, uploads)
        async with self._truth.transaction(scope) as session:
            spec = await _pinned(session, project, spec)
            # Two of one name at once: the second waits here, and then finds the first.
            await session.execute(
                "SELECT pg_advisory_xact_lock(hashtext(%s))", (f"{project[1]} {spec.name}",)
            )
            found = await fetch_one(
                session,
                "SELECT * FROM services WHERE project_id = %s AND name = %s AND state <> 'stopped' FOR UPDATE",
                (project[1], spec.name),
            )
            files = [{"path": u.path, "digest": u.digest, "bytes": u.bytes, "mode": u.mode} for u in uploads]
            if found is None:
                return await self._make(session, scope, project, spec, files, by=by)
            return await self._next(session, scope, found, spec, files, by=by)

    async def find(self, scope: Scope, name: str) -> Row:
        """The service of that id, or the newest of that name, as far as `scope` sees. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            return await _found(session, name)

    async def stop(self, scope: Scope, name: str, *, by: str) -> Row:
        """From now on no request is taken; its replicas end. Raises NotFound, Conflict where it has stopped."""
        async with self._truth.transaction(scope) as session:
            row = await _found(session, name)
            if row["state"] == ServiceState.STOPPED:
                raise Conflict(f"{row['name']} has stopped already")
            await move_service(session, row, ServiceEvent.STOP, actor=by, sentence=None)
            stopped = await fetch_one(
                session,
                "UPDATE services SET wanted = 0, wanted_why = 'stopped', sentence = NULL, candidate_no = NULL,"
                " candidate_share = 0 WHERE service_id = %s RETURNING *",
                (row["service_id"],),
            )
        assert stopped is not None
        return dict(stopped)

    async def scale(self, scope: Scope, name: str, *, least: int | None, most: int | None, by: str) -> Row:
        """Other bounds for the versions that serve, at once and without a rollout.

        Raises NotFound, Refused for bounds that are no range, Conflict where it has stopped.
        """
        async with self._truth.transaction(scope) as session:
            row = await _living(session, name)
            versions = await fetch_all(
                session,
                "SELECT * FROM service_versions WHERE service_id = %s AND state IN ('current', 'candidate')",
                (row["service_id"],),
            )
            for version in versions:
                spec = RunSpec.from_json(version["spec"])
                assert isinstance(spec.work, Service)
                was = spec.work.scaling
                try:
                    scaling = replace(
                        was,
                        least=was.least if least is None else least,
                        most=was.most if most is None else most,
                    )
                except ValueError as wrong:
                    raise Refused(f"{wrong}: write --min and --max, --min no larger than --max") from wrong
                scaled = replace(spec, work=replace(spec.work, scaling=scaling))
                await session.execute(
                    "UPDATE service_versions SET spec = %s, digest = %s WHERE service_id = %s AND version_no = %s",
                    (
                        Jsonb(scaled.to_json()),
                        digest_of(scaled, version["files"]),
                        row["service_id"],
                        version["version_no"],
                    ),
                )
            await record(
                session, "service", row["service_id"], "scale", actor=by, tenant_id=row["tenant_id"],
                project_id=row["project_id"], sentence=f"{least}..{most}",
            )  # fmt: skip
            await session.execute(
                "UPDATE services SET wanted_why = wanted_why WHERE service_id = %s", (row["service_id"],)
            )
        return row

    async def promote(self, scope: Scope, name: str, *, by: str) -> Row:
        """The candidate takes all requests, now. Raises NotFound, Conflict where there is none."""
        async with self._truth.transaction(scope) as session:
            row = await _candidate(session, name)
            await promote(session, row, actor=by, sentence="promoted by hand")
        return row

    async def roll_back(self, scope: Scope, name: str, *, by: str) -> Row:
        """The candidate gets nothing more, and ends. Raises NotFound, Conflict where there is none."""
        async with self._truth.transaction(scope) as session:
            row = await _candidate(session, name)
            await roll_back(session, row, actor=by, sentence="rolled back by hand")
        return row

    # ---- inside

    async def _make(
        self,
        session: Session,
        scope: Scope,
        project: tuple[TenantId, ProjectId],
        spec: RunSpec,
        files: list[Row],
        *,
        by: str,
    ) -> Applied:
        assert isinstance(spec.work, Service)
        service_id = mint("svc")
        await session.execute(
            "INSERT INTO services (service_id, tenant_id, project_id, name, model_name, made_by)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (service_id, *project, spec.name, spec.work.model_name, by),
        )
        await _insert_version(session, (service_id, 1), project, spec, files, VersionState.CURRENT, by=by)
        await record(
            session, "service", service_id, "made", actor=scope.actor, tenant_id=project[0],
            project_id=project[1], to_state=ServiceState.IDLE.value,
        )  # fmt: skip
        return Applied(service_id=service_id, name=spec.name, version_no=1, made=True, rolling=False)

    async def _next(
        self, session: Session, scope: Scope, service: Row, spec: RunSpec, files: list[Row], *, by: str
    ) -> Applied:
        assert isinstance(spec.work, Service)
        service_id = service["service_id"]
        digest = digest_of(spec, files)
        versions = await fetch_all(
            session,
            "SELECT version_no, state, digest FROM service_versions WHERE service_id = %s",
            (service_id,),
        )
        for version in versions:
            if version["digest"] == digest and version["state"] in (
                VersionState.CURRENT,
                VersionState.CANDIDATE,
            ):
                if version["state"] == VersionState.CURRENT and service["candidate_no"] is not None:
                    await roll_back(
                        session, service, actor=by, sentence="the spec that serves was applied again"
                    )
                return Applied(
                    service_id=service_id,
                    name=service["name"],
                    version_no=version["version_no"],
                    made=False,
                    rolling=version["state"] == VersionState.CANDIDATE,
                )
        if service["candidate_no"] is not None:
            await _settle_version(
                session, service, service["candidate_no"], VersionState.CANDIDATE, VersionEvent.RETIRE,
                actor=by, sentence="another version came before it had taken over",
            )  # fmt: skip
        version_no = max(version["version_no"] for version in versions) + 1
        project = (TenantId(service["tenant_id"]), ProjectId(service["project_id"]))
        await _insert_version(
            session, (service_id, version_no), project, spec, files, VersionState.CANDIDATE, by=by
        )
        await session.execute(
            "UPDATE services SET candidate_no = %s, candidate_share = 0, step_at = now() WHERE service_id = %s",
            (version_no, service_id),
        )
        await record(
            session, "service", service_id, "roll_out", actor=scope.actor, tenant_id=project[0],
            project_id=project[1], sentence=f"version {version_no}",
        )  # fmt: skip
        return Applied(
            service_id=service_id, name=service["name"], version_no=version_no, made=False, rolling=True
        )


def digest_of(spec: RunSpec, files: Sequence[Mapping[str, Any]]) -> str:
    """The same for specs and files that are the same."""
    body = {"spec": spec.to_json(), "files": sorted((f["path"], f["digest"], f["mode"]) for f in files)}
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


async def move_service(
    session: Session, row: Mapping[str, Any], event: ServiceEvent, *, actor: str, sentence: str | None
) -> None:
    """One move, where nobody moved it meanwhile."""
    before = ServiceState(row["state"])
    after = SERVICE_MOVES[before, event]
    moved = await fetch_one(
        session,
        "UPDATE services SET state = %s, stopped_at = CASE WHEN %s = 'stopped' THEN now() END"
        " WHERE service_id = %s AND state = %s RETURNING service_id",
        (after.value, after.value, row["service_id"], before.value),
    )
    if moved is not None:
        await record(
            session, "service", row["service_id"], event.value, actor=actor, tenant_id=row["tenant_id"],
            project_id=row["project_id"], from_state=before.value, to_state=after.value, sentence=sentence,
        )  # fmt: skip


async def promote(session: Session, service: Mapping[str, Any], *, actor: str, sentence: str) -> None:
    """The candidate becomes the current version, and the one before is retired."""
    current, candidate = service["version_no"], service["candidate_no"]
    await _settle_version(
        session, service, current, VersionState.CURRENT, VersionEvent.RETIRE, actor=actor, sentence=None
    )
    await _settle_version(
        session,
        service,
        candidate,
        VersionState.CANDIDATE,
        VersionEvent.PROMOTE,
        actor=actor,
        sentence=sentence,
    )
    await session.execute(
        "UPDATE services s SET version_no = candidate_no, candidate_no = NULL, candidate_share = 0, step_at = now(),"
        " model_name = coalesce((SELECT v.spec->'work'->>'model_name' FROM service_versions v"
        "   WHERE v.service_id = s.service_id AND v.version_no = s.candidate_no), model_name)"
        " WHERE service_id = %s",
        (service["service_id"],),
    )


async def roll_back(session: Session, service: Mapping[str, Any], *, actor: str, sentence: str) -> None:
    """The candidate gets nothing more; the current version serves all."""
    await _settle_version(
        session, service, service["candidate_no"], VersionState.CANDIDATE, VersionEvent.ROLL_BACK,
        actor=actor, sentence=sentence,
    )  # fmt: skip
    await session.execute(
        "UPDATE services SET candidate_no = NULL, candidate_share = 0, step_at = now() WHERE service_id = %s",
        (service["service_id"],),
    )


async def _settle_version(
    session: Session, service: Mapping[str, Any], version_no: int, before: VersionState, event: VersionEvent,
    *, actor: str, sentence: str | None,
) -> None:  # fmt: skip
    after = VERSION_MOVES[before, event]
    await session.execute(
        "UPDATE service_versions SET state = %s, settled_at = now(), sentence = coalesce(%s, sentence)"
        " WHERE service_id = %s AND version_no = %s AND state = %s",
        (after.value, sentence, service["service_id"], version_no, before.value),
    )
    await record(
        session, "service", service["service_id"], f"version_{event.value}", actor=actor,
        tenant_id=service["tenant_id"], project_id=service["project_id"],
        sentence=f"version {version_no}" + (f": {sentence}" if sentence else ""),
    )  # fmt: skip


async def _insert_version(
    session: Session, version: tuple[str, int], project: tuple[TenantId, ProjectId], spec: RunSpec,
    files: list[Row], state: VersionState, *, by: str,
) -> None:  # fmt: skip
    await session.execute(
        "INSERT INTO service_versions (service_id, version_no, tenant_id, project_id, spec, files, digest, state,"
        " made_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (*version, *project, Jsonb(spec.to_json()), Jsonb(files), digest_of(spec, files), state.value, by),
    )


async def _pinned(session: Session, project: tuple[TenantId, ProjectId], spec: RunSpec) -> RunSpec:
    """With the run that `model: run:NAME` means now, so that a version stays what it is."""
    assert isinstance(spec.work, Service)
    model = spec.work.model
    if model is None or not model.startswith(FROM_RUN):
        return spec
    source = model_source_of(model)
    name = source.place
    run = await fetch_one(
        session,
        "SELECT r.run_id, r.kind, r.state = 'succeeded' OR EXISTS"
        " (SELECT FROM checkpoints c WHERE c.run_id = r.run_id AND r.kind = 'train') AS kept"
        " FROM runs r WHERE r.project_id = %(project)s AND (r.run_id = %(name)s OR r.name = %(name)s)"
        " ORDER BY r.run_id = %(name)s DESC, (r.kind = 'train') DESC, (r.state = 'succeeded') DESC,"
        " r.submitted_at DESC LIMIT 1",
        {"project": project[1], "name": name},
    )
    if run is None:
        raise Refused(f"model: {model}: there is no run {name}; `baseai ps --all` lists those there are")
    if run["kind"] not in ("train", "task") or not run["kept"]:
        why = "has saved no checkpoint yet" if run["kind"] == "train" else "has made nothing yet"
        raise Refused(
            f"model: {model}: {name} {why}; name a run that has ended well, or a training run that saved"
        )
    pinned = replace(source, place=run["run_id"])
    return replace(spec, work=replace(spec.work, model=pinned.written))


async def _found(session: Session, name: str) -> Row:
    row = await fetch_one(
        session,
        "SELECT * FROM services WHERE service_id = %(name)s OR name = %(name)s"
        " ORDER BY service_id = %(name)s DESC, state = 'stopped', made_at DESC LIMIT 1 FOR UPDATE",
        {"name": name},
    )
    if row is None:
        raise NotFound("service", name)
    return dict(row)


async def _living(session: Session, name: str) -> Row:
    row = await _found(session, name)
    if row["state"] == ServiceState.STOPPED:
        raise Conflict(f"{row['name']} has stopped: apply its spec again")
    return row


async def _candidate(session: Session, name: str) -> Row:
    row = await _living(session, name)
    if row["candidate_no"] is None:
        raise Conflict(f"no version of {row['name']} is taking over")
    return row
