"""Routes of what is measured: the latest, a range, an aggregate, where values come from, how collectors fare, use."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from baseai.api import schemas as wire
from baseai.api.arrow import MEDIA_TYPE, Column, arrow_stream
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.api.question import (
    CELLS_MAX,
    RAW_SPAN_MAX,
    During,
    by_of,
    during,
    family_of,
    field_of,
    fields_of,
    keys_of,
    points_of,
)
from baseai.ground.fault import Refused
from baseai.telemetry.field import ACCELERATOR, FAMILIES, Family
from baseai.telemetry.sample import origin_of, state_of
from baseai.telemetry.store import Aggregate, Latest, Series, Tier
from baseai.tenancy.key import Holder, NotAllowed
from baseai.tenancy.role import Deed, may

Texts = Annotated[list[str] | None, Query()]
From = Annotated[str | None, Query(alias="from")]
SPANS_MAX = 64  # of a run, in one answer
WORDS = {
    code: (state_of(code).name.lower(), origin_of(code).name.lower()) for code in range(48) if code & 15 <= 4
}


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()
    sees_fleet = gate.allowed(Deed.SEE_FLEET)

    @router.get("/telemetry/fields")
    async def fields(_: Holder = sees_fleet) -> dict[str, Any]:
        """What is measured of each kind of thing."""
        return {
            name: {"key": family.key, "fields": [_field(family, one) for one in family.names]}
            for name, family in FAMILIES.items()
        }

    @router.get("/telemetry/latest")
    async def latest(
        request: Request,
        family: str = "accelerator",
        key: Texts = None,
        field: Texts = None,
        format: str | None = None,  # noqa: A002 - the name people type
        _: Holder = sees_fleet,
    ) -> Response:
        of = family_of(family)
        names = fields_of(of, field)
        found = await doors.metrics.latest(of, keys_of(key))
        if wants_arrow(request, format):
            return await _arrow(_latest_columns(found, names))
        return await _json(len(found.keys) * len(names), lambda: _latest(found, names))

    @router.get("/telemetry/range")
    async def range_(
        request: Request,
        key: str,
        family: str = "accelerator",
        field: Texts = None,
        from_: From = None,
        until: str | None = None,
        points: int | None = None,
        format: str | None = None,  # noqa: A002
        _: Holder = sees_fleet,
    ) -> Response:
        of = family_of(family)
        names = fields_of(of, field)
        when = during(from_, until)
        if points is None and when.until_at - when.from_at > RAW_SPAN_MAX:
            raise Refused(
                f"points: every sample of more than {RAW_SPAN_MAX.days} days is too many; say how many points"
            )
        found = await doors.metrics.range(
            of, key, names, from_ms=when.from_ms, until_ms=when.until_ms, points_max=points_of(points)
        )
        if wants_arrow(request, format):
            return await _arrow(_series_columns(found))
        return await _json(found.values.size, lambda: _series(of, found))

    @router.get("/telemetry/aggregate")
    async def aggregate(
        request: Request,
        field: str,
        family: str = "accelerator",
        by: str = "fleet",
        key: Texts = None,
        from_: From = None,
        until: str | None = None,
        points: int = 300,
        format: str | None = None,  # noqa: A002
        _: Holder = sees_fleet,
    ) -> Response:
        of = family_of(family)
        when = during(from_, until)
        found = await doors.metrics.aggregate(
            of,
            field_of(of, field),
            from_ms=when.from_ms,
            until_ms=when.until_ms,
            by=by_of(by),
            keys=keys_of(key),
            points_max=points_of(points) or 300,
        )
        if wants_arrow(request, format):
            return await _arrow(_aggregate_columns(found))
        return await _json(found.total.size * 6, lambda: _aggregate(of, found))

    @router.get("/telemetry/sources")
    async def sources(key: str, family: str = "accelerator", _: Holder = sees_fleet) -> dict[str, str]:
        """Field → where its newest value comes from: exporter, its own name for it, and the unit factor."""
        return dict(await doors.metrics.sources(family_of(family), key))

    @router.get("/telemetry/collectors")
    async def collectors(node: str | None = None, holder: Holder = sees_fleet) -> wire.Page:
        rows = await doors.uses.all_collectors(scope_of(holder))
        return wire.Page(
            items=[
                {
                    "node": row["node"],
                    "node_id": row["node_id"],
                    **wire.CollectorView(**row).model_dump(mode="json"),
                }
                for row in rows
                if node is None or node in (row["node"], row["node_id"])
            ]
        )

    @router.get("/telemetry/use")
    async def use(
        holder: Annotated[Holder, Depends(gate.admitted)],
        by: str = "run",
        subject: str | None = None,
        from_: From = None,
        until: str | None = None,
    ) -> dict[str, Any]:
        """What accelerators gave to whom: `items` of UseView, and `reckoning`, whether they add up.

        A tenant's key sees its own and no reckoning; time that nobody held is the subject "".
        """
        whose = Deed.SEE_RUNS if by in ("run", "tenant") else Deed.SEE_FLEET
        if not (may(holder.role, whose) or may(holder.role, Deed.SEE_RUNS)):
            raise NotAllowed(holder.role.value, whose.value)
        scope = scope_of(holder)
        if subject is not None and by == "run":
            subject = (await doors.runs.find(scope, subject))["run_id"]
        when = during(from_, until) if from_ or until else None
        rows = await doors.uses.uses(
            scope,
            by=by,
            subject=subject,
            from_at=when.from_at if when else None,
            until_at=when.until_at if when else None,
        )
        told: dict[str, Any] = {"items": [wire.UseView(**row) for row in rows]}
        if scope.tenant_id is None:
            told["reckoning"] = wire.Reckoning(**await doors.uses.reckoning(scope))
        return told

    @router.get("/runs/{name}/use")
    async def use_of_run(name: str, holder: Holder = gate.allowed(Deed.SEE_RUNS)) -> wire.UseView:
        scope = scope_of(holder)
        run_id = (await doors.runs.find(scope, name))["run_id"]
        return wire.UseView(**await doors.uses.use_of_run(scope, run_id))

    @router.get("/runs/{name}/telemetry")
    async def of_run(
        name: str,
        field: Texts = None,
        points: int = 300,
        cursor: Annotated[int, Query(ge=0)] = 0,
        holder: Holder = gate.allowed(Deed.SEE_RUNS),
    ) -> dict[str, Any]:
        """Samples of a run's accelerators, of the time it had them and of no other."""
        scope = scope_of(holder)
        names = fields_of(ACCELERATOR, field)
        run_id = (await doors.runs.find(scope, name))["run_id"]
        spans = await doors.uses.spans_of_run(scope, run_id)
        items = [
            await _of_span(doors, span, names, points_of(points))
            for span in spans[cursor : cursor + SPANS_MAX]
        ]
        more = cursor + SPANS_MAX
        return {"items": items, "next": str(more) if len(spans) > more else None}

    return router


def wants_arrow(request: Request, format: str | None) -> bool:  # noqa: A002
    """Whether the asker wants a table for data frames: by the header, or by `format`."""
    if format not in (None, "json", "arrow"):
        raise Refused(f"format: an answer comes as json or arrow, not as {format[:40]!r}")
    return format == "arrow" or (format is None and MEDIA_TYPE in request.headers.get("accept", ""))


async def _of_span(
    doors: Doors, span: Mapping[str, Any], names: Sequence[str], points: int | None
) -> dict[str, Any]:
    when = During(from_at=span["from_at"], until_at=span["until_at"])
    found = await doors.metrics.range(
        ACCELERATOR, span["serial"], names, from_ms=when.from_ms, until_ms=when.until_ms, points_max=points
    )
    # Buckets at the ends hold samples of whoever came before and after: those are not shown.
    inside = found.ts_ms >= when.from_ms
    if found.tier is not Tier.RAW and len(found.ts_ms) > 1:
        inside &= found.ts_ms + int(np.diff(found.ts_ms).min()) <= when.until_ms
    return {
        "serial": span["serial"],
        "node_id": span["node_id"],
        "from_at": span["from_at"],
        "until_at": span["until_at"],
        **_series(ACCELERATOR, found, inside),
    }


# ---- shapes


def _field(family: Family, name: str) -> dict[str, Any]:
    one = family[name]
    return {"name": name, "unit": one.unit, "kind": one.kind.value, "meaning": one.meaning}


def _known(values: NDArray[Any]) -> list[Any]:
    """Numbers with None where nothing is known."""
    return [None if value != value else value for value in values.tolist()]


def _latest(found: Latest, names: Sequence[str]) -> dict[str, Any]:
    columns = [found.family.index[name] for name in names]
    values, codes = found.values[:, columns].tolist(), found.codes[:, columns].tolist()
    at = np.datetime_as_string(found.ts_ms.astype("datetime64[ms]"), unit="ms").tolist() if found.keys else []
    return {
        "family": found.family.name,
        "items": [
            {
                "key": key,
                "node_id": place.node_id,
                "site": place.site,
                "model": place.model,
                "ts": f"{at[row]}Z",
                "fields": {
                    name: {
                        "value": None if value != value else value,
                        "state": WORDS[code][0],
                        "origin": WORDS[code][1],
                    }
                    for name, value, code in zip(names, values[row], codes[row], strict=True)
                },
            }
            for row, (key, place) in enumerate(zip(found.keys, found.places, strict=True))
        ],
    }


def _series(family: Family, found: Series, inside: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    shown = slice(None) if inside is None else inside
    values, codes = found.values[shown], found.codes[shown]
    return {
        "key": found.key,
        "tier": found.tier.value,
        "ts_ms": found.ts_ms[shown].tolist(),
        "fields": {
            name: {
                "unit": family[name].unit,
                "values": _known(values[:, column]),
                "states": [WORDS[code][0] for code in codes[:, column].tolist()],
                "origins": [WORDS[code][1] for code in codes[:, column].tolist()],
            }
            for column, name in enumerate(found.fields)
        },
    }


def _aggregate(family: Family, found: Aggregate) -> dict[str, Any]:
    shown = {
        "mean": found.mean, "low": found.low, "high": found.high, "total": found.total, "last": found.last,
        "delta": found.delta, "count": found.count,
    }  # fmt: skip
    return {
        "family": family.name,
        "field": found.field,
        "unit": family[found.field].unit,
        "by": found.by.value,
        "tier": found.tier.value,
        "step_s": found.step_ms / 1000,
        "ts_ms": found.ts_ms.tolist(),
        "groups": [
            {"group": group, **{name: _known(cells[row]) for name, cells in shown.items()}}
            for row, group in enumerate(found.groups)
        ],
    }


def _latest_columns(found: Latest, names: Sequence[str]) -> dict[str, Column]:
    columns: dict[str, Column] = {
        "key": found.keys,
        "node_id": [place.node_id for place in found.places],
        "site": [place.site for place in found.places],
        "model": [place.model for place in found.places],
        "ts": found.ts_ms,
    }
    for name in names:
        columns[name] = found.values[:, found.family.index[name]]
        columns[f"{name}_code"] = found.codes[:, found.family.index[name]]
    return columns


def _series_columns(found: Series) -> dict[str, Column]:
    columns: dict[str, Column] = {"ts": found.ts_ms, "boot": found.boots.astype(np.int64)}
    for column, name in enumerate(found.fields):
        columns[name] = found.values[:, column]
        columns[f"{name}_code"] = found.codes[:, column]
    return columns


def _aggregate_columns(found: Aggregate) -> dict[str, Column]:
    """One row for each group and bucket."""
    buckets = len(found.ts_ms)
    return {
        "group": [group for group in found.groups for _ in range(buckets)],
        "ts": np.tile(found.ts_ms, len(found.groups)),
        "mean": found.mean.ravel(),
        "low": found.low.ravel(),
        "high": found.high.ravel(),
        "total": found.total.ravel(),
        "count": found.count.astype(np.int64).ravel(),
        "last": found.last.ravel(),
        "delta": found.delta.ravel(),
    }


async def _arrow(columns: Mapping[str, Column]) -> Response:
    return Response(await run_in_threadpool(arrow_stream, columns), media_type=MEDIA_TYPE)


async def _json(cells: int, make: Any) -> Response:
    if cells > CELLS_MAX:
        raise Refused(
            f"{cells} numbers are too many for JSON: ask for fewer fields or points, or take it as format=arrow"
        )
    return await run_in_threadpool(lambda: JSONResponse(make()))
