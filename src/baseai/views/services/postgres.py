"""Services, their versions, replicas and traffic, and models, read from PostgreSQL in the asker's scope.

Each answer is a mapping with the fields of the shape of the same name in the doors' schemas. Nothing is written here.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from baseai.ground.fault import NotFound, Refused
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one
from baseai.views.page import cursor_of, limit_of, page_of
from baseai.views.services.cost import ReplicaTime
from baseai.views.services.traffic import (
    COUNTED,
    WINDOWS,
    Steps,
    Window,
    points_of,
    ready_steps,
    slo_of,
    told_of,
)
from baseai.workloads.service import Service
from baseai.workloads.spec import RunSpec

Row = dict[str, Any]
VERSIONS_SHOWN = 20
REPLICAS_SHOWN = 100  # those that are there, then those that are gone, the newest first
SCALINGS_SHOWN = 50
NOW_S = 60  # what a list shows of traffic
SLO_SHORT_S, SLO_LONG_S = 300, 3_600
DEMAND_KEPT_S = 540  # a little less than the keeper does: whole steps of it are there
OF_THE_TRAINING = frozenset(
    {"step", "repeated_steps", "goodput_ratio", "tokens_per_s"}
)  # not of what it made
TRAFFIC_LATE_S = 20  # gateways tell ten seconds at a time, and then it has to arrive

_SERVICE = f"""
SELECT s.*, t.name AS tenant, p.name AS project, v.spec, v.digest,
  (SELECT count(*) FROM replicas r WHERE r.service_id = s.service_id AND r.state = 'ready') AS ready,
  (SELECT count(*) FROM replicas r WHERE r.service_id = s.service_id AND r.state <> 'gone') AS replicas,
  coalesce(seen.requests, 0) AS requests, coalesce(seen.wrong, 0) AS wrong, seen.last_at
FROM services s JOIN tenants t USING (tenant_id) JOIN projects p USING (project_id)
  JOIN service_versions v USING (service_id, version_no)
  LEFT JOIN LATERAL (SELECT sum(x.requests - x.refused)::bigint AS requests, sum(x.errors)::bigint AS wrong,
      max(x.from_at) AS last_at FROM service_traffic x WHERE x.service_id = s.service_id
      AND x.from_at >= now() - interval '{NOW_S + TRAFFIC_LATE_S} s'
      AND x.from_at < now() - interval '{TRAFFIC_LATE_S} s') seen ON true
"""  # noqa: S608 - pieces are constants of this file
_SUMS = ", ".join(f"sum({name})::bigint AS {name}" for name in COUNTED)
# Arrays are added place by place; both in one walk over them.
_COUNTED = f"""
WITH seen AS MATERIALIZED (
  SELECT date_bin(make_interval(secs => %(step_s)s), from_at, %(from_at)s) AS at, x.* FROM service_traffic x
  WHERE x.service_id = %(service_id)s AND x.from_at >= %(from_at)s AND x.from_at < %(until_at)s
), buckets AS (
  SELECT at, array_agg(l ORDER BY place) AS latency, array_agg(f ORDER BY place) AS first_byte
  FROM (SELECT at, place, sum(l)::bigint AS l, sum(f)::bigint AS f
    FROM seen, unnest(seen.latency, seen.first_byte) WITH ORDINALITY AS u (l, f, place) GROUP BY at, place) added
  GROUP BY at
)
SELECT sums.*, latency, first_byte FROM (SELECT at, {_SUMS} FROM seen GROUP BY at) sums LEFT JOIN buckets USING (at)
"""  # noqa: S608 - pieces are constants of this file
# Seconds in which nothing was asked have no row.
_CONCURRENCY = """
SELECT date_bin(make_interval(secs => %(step_s)s), at, %(from_at)s) AS step,
  sum(concurrency)::float8 / %(step_s)s AS concurrency
FROM service_demand WHERE service_id = %(service_id)s AND at >= %(from_at)s AND at < %(until_at)s GROUP BY 1
"""
# The last decision before the window holds at its beginning.
_WANTED = """
(SELECT at, wanted FROM service_scalings WHERE service_id = %(service_id)s AND at < %(from_at)s
  ORDER BY at DESC LIMIT 1)
UNION ALL
(SELECT at, wanted FROM service_scalings WHERE service_id = %(service_id)s AND at >= %(from_at)s
  AND at < %(until_at)s) ORDER BY at
"""
_REPLICAS = """
SELECT r.*, u.name AS run, u.state AS run_state, u.sentence AS run_sentence, u.wait->>'sentence' AS waits,
  n.name AS node, u.attempt_no AS attempts
FROM replicas r JOIN runs u USING (run_id) LEFT JOIN LATERAL (SELECT l.node_id FROM leases l WHERE l.run_id = r.run_id
    ORDER BY l.attempt_no DESC, l.node_rank LIMIT 1) held ON true LEFT JOIN nodes n ON n.node_id = held.node_id
WHERE r.service_id = %s ORDER BY (r.state = 'gone'), r.made_at DESC, r.run_id LIMIT %s
"""
# A lease that goes on is observed up to now; one that nobody saw yet has no time.
_TIMES = """
SELECT run_id, (sum(extract(epoch FROM seen - since)) * 1000000)::bigint AS all_us,
  (sum(extract(epoch FROM greatest(least(seen, %(until_at)s) - greatest(since, %(from_at)s), interval '0')))
    * 1000000)::bigint AS within_us
FROM (SELECT l.run_id, greatest(l.observed_from, l.granted_at) AS since, l.observed_until AS seen FROM leases l
  JOIN runs u USING (run_id) JOIN lease_accelerators USING (lease_id)
  WHERE u.service_id = %(service_id)s AND l.observed_until > greatest(l.observed_from, l.granted_at)) leased
GROUP BY run_id HAVING bool_or(seen > %(from_at)s AND since < %(until_at)s)
"""
_MODELS = """
SELECT m.*, t.name AS tenant, p.name AS project, r.name AS origin_run, r.result AS origin_result,
  (SELECT coalesce(array_agg(DISTINCT s.name ORDER BY s.name), '{}') FROM replicas x JOIN services s USING (service_id)
    WHERE x.model_digest = m.digest AND x.state <> 'gone' AND s.project_id = m.project_id) AS served_by
FROM models m JOIN tenants t USING (tenant_id) JOIN projects p USING (project_id)
  LEFT JOIN runs r ON r.run_id = m.origin_run_id
"""


class ServiceViews:
    """What doors show of services."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def services(
        self, scope: Scope, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Row], str | None]:
        """The newest first; without `everything` those that were not stopped. Raises Refused for a bad cursor."""
        at, after_id = cursor_of(cursor)
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                _SERVICE + " WHERE (%(everything)s OR s.state <> 'stopped')"
                " AND (%(at)s::timestamptz IS NULL OR (s.made_at, s.service_id) < (%(at)s, %(id)s))"
                " ORDER BY s.made_at DESC, s.service_id DESC LIMIT %(limit)s",
                {"everything": everything, "at": at, "id": after_id, "limit": limit_of(limit) + 1},
            )
        return page_of([_service(row) for row in rows], limit, "made_at", "service_id")

    async def find(self, scope: Scope, name: str) -> Row:
        """One service by id or by name, with the fields of ServiceView.

        Of several of one name the one that was not stopped, then the newest. Raises NotFound, also for another
        tenant's; Refused where several that were not stopped have the name.
        """
        async with self._truth.transaction(scope) as session:
            return _service(await _found(session, name))

    async def service(self, scope: Scope, name: str) -> Row:
        """One service with its versions, replicas, scalings and SLO: the fields of ServiceDetail. Raises as `find`."""
        async with self._truth.transaction(scope) as session:
            row = await _found(session, name)
            service_id = row["service_id"]
            versions = await fetch_all(
                session,
                "SELECT * FROM service_versions WHERE service_id = %s ORDER BY version_no DESC LIMIT %s",
                (service_id, VERSIONS_SHOWN),
            )
            replicas = await fetch_all(session, _REPLICAS, (service_id, REPLICAS_SHOWN))
            scalings = await fetch_all(
                session,
                "SELECT * FROM service_scalings WHERE service_id = %s ORDER BY at DESC LIMIT %s",
                (service_id, SCALINGS_SHOWN),
            )
            now = (await fetch_all(session, "SELECT now() AS now"))[0]["now"]
            short, long = [
                await _sum(session, service_id, now - timedelta(seconds=span_s), now)
                for span_s in (SLO_SHORT_S, SLO_LONG_S)
            ]
        shown = _service(row)
        return {
            "service": shown,
            "versions": [_version(version, row) for version in versions],
            "replicas": [_replica(replica, now) for replica in replicas],
            "scalings": scalings,
            "slo": slo_of(shown["p99_ms"], short, long),
            "spec": row["spec"],
        }

    async def traffic(self, scope: Scope, name: str, window: str = "15m") -> Row:
        """What was asked and answered lately, step by step and in sum: the fields of TrafficView.

        The last step may still grow: gateways tell ten seconds at a time. Raises as `find`, Refused for a window
        that is none.
        """
        asked = window_of(window)
        async with self._truth.transaction(scope) as session:
            service_id = (await _found(session, name))["service_id"]
            now = (await fetch_all(session, "SELECT now() AS now"))[0]["now"]
            until_at = _floor(now, asked.step_s)
            from_at = until_at - timedelta(seconds=asked.span_s)
            given = {
                "service_id": service_id, "step_s": asked.step_s, "from_at": from_at, "until_at": until_at
            }  # fmt: skip
            counted = {row["at"]: row for row in await fetch_all(session, _COUNTED, given)}
            whole = await fetch_all(session, _COUNTED, given | {"step_s": asked.span_s})
            concurrency = {
                row["step"]: row["concurrency"] for row in await fetch_all(session, _CONCURRENCY, given)
            }
            wanted = await fetch_all(session, _WANTED, given)
            answered = await fetch_all(
                session,
                "SELECT ready_at, coalesce(draining_at, gone_at) AS until_at FROM replicas WHERE service_id = %s"
                " AND ready_at IS NOT NULL AND coalesce(gone_at, 'infinity') > %s",
                (service_id, from_at),
            )
        return {
            "from_at": from_at,
            "until_at": until_at,
            "step_s": asked.step_s,
            "window": asked.name,
            "total": told_of(whole[0] if whole else None, asked.span_s),
            "points": points_of(
                counted, from_at, until_at, asked.step_s,
                concurrency=_kept(concurrency, now, asked.step_s, until_at),
                wanted=Steps(at=tuple(row["at"] for row in wanted), values=tuple(row["wanted"] for row in wanted)),
                ready=ready_steps([(row["ready_at"], row["until_at"]) for row in answered]),
            ),
        }  # fmt: skip

    async def spent(
        self, scope: Scope, name: str, window: str = "24h"
    ) -> tuple[datetime, datetime, Sequence[ReplicaTime], Row]:
        """What a cost is made of: from and until when, time of the replicas that were there, and what they answered.

        Raises as `traffic`.
        """
        asked = window_of(window)
        async with self._truth.transaction(scope) as session:
            service_id = (await _found(session, name))["service_id"]
            until_at = (await fetch_all(session, "SELECT now() AS now"))[0]["now"]
            from_at = until_at - timedelta(seconds=asked.span_s)
            given = {"service_id": service_id, "from_at": from_at, "until_at": until_at}
            times = await fetch_all(session, _TIMES, given)
            answered = await _sum(session, service_id, from_at, until_at)
        return from_at, until_at, [ReplicaTime(**time) for time in times], answered

    async def models(
        self, scope: Scope, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[Row], str | None]:
        """Models that were served, the newest first: the fields of ModelView. Raises Refused for a bad cursor."""
        at, after_id = cursor_of(cursor)
        async with self._truth.transaction(scope) as session:
            rows = await fetch_all(
                session,
                _MODELS + " WHERE (%(at)s::timestamptz IS NULL OR (m.made_at, m.model_id) < (%(at)s, %(id)s))"
                " ORDER BY m.made_at DESC, m.model_id DESC LIMIT %(limit)s",
                {"at": at, "id": after_id, "limit": limit_of(limit) + 1},
            )
        return page_of([_model(row) for row in rows], limit, "made_at", "model_id")


def window_of(name: str) -> Window:
    """Raises Refused for a window that is none."""
    if name not in WINDOWS:
        raise Refused(f"{name!r} is not a window: it is one of {', '.join(WINDOWS)}")
    return WINDOWS[name]


async def _found(session: Session, name: str) -> Row:
    rows = await fetch_all(
        session,
        _SERVICE + " WHERE s.service_id = %(name)s OR s.name = %(name)s"
        " ORDER BY (s.service_id = %(name)s) DESC, (s.state = 'stopped'), s.made_at DESC LIMIT 2",
        {"name": name},
    )
    if not rows:
        raise NotFound("service", name)
    first = rows[0]
    if first["service_id"] != name and len(rows) > 1 and rows[1]["state"] != "stopped":
        raise Refused(
            f"there are several services {name}: say which by its id, as {first['service_id']}"
            f" of {first['tenant']}/{first['project']}"
        )
    return first


async def _sum(session: Session, service_id: str, from_at: datetime, until_at: datetime) -> Row:
    span_s = (until_at - from_at).total_seconds()
    given = {"service_id": service_id, "from_at": from_at, "until_at": until_at, "step_s": span_s}
    row = await fetch_one(session, _COUNTED, given)
    return told_of(row, span_s)


def _service(row: Mapping[str, Any]) -> Row:
    spec = RunSpec.from_json(row["spec"])
    terms = spec.work
    assert isinstance(terms, Service)
    return {
        **{name: value for name, value in row.items() if name not in ("spec", "requests", "wrong")},
        "gpu": spec.asked_text,
        "nodes": spec.nodes,
        "engine": terms.engine,
        "protocol": terms.protocol,
        "model": terms.model,
        "license": terms.license,
        "least": terms.scaling.least,
        "most": terms.scaling.most,
        "concurrency": terms.concurrency,
        "p99_ms": terms.p99_ms,
        "auth": terms.auth,
        "cached": terms.cache is not None,
        "requests_per_s": row["requests"] / NOW_S,
        "error_ratio": row["wrong"] / row["requests"] if row["requests"] else None,
    }


def _version(version: Mapping[str, Any], service: Mapping[str, Any]) -> Row:
    """A version with its share of the requests."""
    number, candidate = version["version_no"], service["candidate_no"]
    share = 0.0
    if number == candidate:
        share = service["candidate_share"]
    elif number == service["version_no"]:
        share = 1 - service["candidate_share"] if candidate is not None else 1.0
    terms = Service.from_json(version["spec"]["work"])
    return {
        **{name: value for name, value in version.items() if name not in ("spec", "files")},
        "share": share,
        "engine": terms.engine,
        "model": terms.model,
        "step_at": service["step_at"] if number == candidate else None,
    }


def _replica(row: Mapping[str, Any], now: datetime) -> Row:
    ready_at, made_at = row["ready_at"], row["made_at"]
    return {
        **row,
        "warm_up_s": None if ready_at is None else (ready_at - made_at).total_seconds(),
        "age_s": ((row["gone_at"] or now) - made_at).total_seconds(),
    }


def _model(row: Row) -> Row:
    """A model with the figures that say how good it is."""
    figures = {
        name: value
        for name, value in row["evaluation"].items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in OF_THE_TRAINING
    }
    return {**row, "evaluation": figures}


def _kept(
    concurrency: Mapping[datetime, float], now: datetime, step_s: int, until_at: datetime
) -> dict[datetime, float]:
    """Of the steps of which every second is kept: nothing asked is zero."""
    known = {}
    at = until_at - timedelta(seconds=step_s)
    while at >= now - timedelta(seconds=DEMAND_KEPT_S):
        known[at] = concurrency.get(at, 0.0)
        at -= timedelta(seconds=step_s)
    return known


def _floor(at: datetime, step_s: int) -> datetime:
    """The beginning of the step in which an instant lies: gateways count from whole tens of seconds."""
    seconds = int(at.timestamp())
    return datetime.fromtimestamp(seconds - seconds % step_s, UTC)
