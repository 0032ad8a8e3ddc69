"""A month of `month.py` written into the truth as the platform would have it: in two halves, with what was agreed.

Rows go straight into the tables, since no agent can have seen October in a test; customers, contracts, prices, rates of
exchange and usage events go through the platform's own doors.
"""

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from baseai.finance.contracts.postgres import Bulletins, UsageEvents
from baseai.finance.customer import check_digits
from baseai.finance.ptax import Bulletin
from baseai.truth.session import Session, Truth
from baseai.wiring.agreements import Desk
from tests.scenarios.month import BEGIN, GONE, HALF, HALLS, INSTALLED, TENANTS, Recorded, Run, Stay, day

PEAK = "America/Sao_Paulo 1-5 09:00-18:00 x1.25"
LISTS = {
    "list": [
        "accelerator_time,H100-SXM,,on_demand,,accelerator_hour,USD,3.85,," + PEAK,
        "accelerator_time,H100-SXM,DC2,on_demand,,accelerator_hour,USD,3.45,,",
        "accelerator_time,L40S,,on_demand,,accelerator_hour,USD,0.87,," + PEAK,
        "accelerator_time,MI300X,,on_demand,,accelerator_hour,USD,1.99,,",
        "accelerator_time,H100-SXM,,spot,,accelerator_hour,USD,1.35,,",
        "accelerator_time,L40S,,spot,,accelerator_hour,USD,0.31,,",
        "accelerator_time,MI300X,,spot,,accelerator_hour,USD,0.7,,",
        "tokens_out,llama-3.3-70b,,on_demand,,million_tokens,BRL,4.2,,",
    ],
    "tabela-reais": [
        "accelerator_time,H100-SXM,,reserved,6,accelerator_hour,BRL,12.9,,",
        "accelerator_time,L40S,,research,,accelerator_hour,BRL,2.1,,",
    ],
    "beta-2026": [
        "accelerator_time,H100-SXM,,on_demand,,accelerator_hour,USD,,0:3.6 500:3.1 2000:2.75,",
        "accelerator_time,MI300X,,on_demand,,accelerator_hour,USD,,0:1.9 1000:1.7,",
    ],
}
HEAD = "meter,model,site,term,months,unit,currency,rate,tiers,peaks,valid_from"
CUSTOMERS = {
    "alfa": ("Alfa Robótica S.A.", "BR", "11222333000", "BRL"),
    "beta": ("Beta Biosciences Inc.", "US", "98-7654321", "USD"),
    "gama": ("Gama Modelos Ltda.", "BR", "12ABC34501D", "BRL"),
    "delta": ("Delta Render Ltda.", "BR", "45XYZ987000", "USD"),
    "epsilon": ("Universidade Épsilon", "BR", "63025530000", "BRL"),
    "zeta": ("Zeta Atendimento S.A.", "BR", "0A1B2C3D000", "BRL"),
}
PROMISE = [
    {"below": Decimal("0.999"), "credit": Decimal("0.05")},
    {"below": Decimal("0.98"), "credit": Decimal("0.1")},
]
HOLIDAYS = (date(2026, 10, 12), date(2026, 11, 2), date(2026, 11, 20))


async def agreed(truth: Truth, desk: Desk, month: Recorded) -> None:
    """Customers, price lists, contracts of every kind, and what a dollar sold for on each day."""
    for list_id, rows in LISTS.items():
        text = "\n".join([HEAD, *(f"{row},2026-01-01" for row in rows)])
        await desk.add_prices(list_id, text, f"{list_id}.csv", actor="finance")
    for tenant, (name, country, tax_id, currency) in CUSTOMERS.items():
        if country == "BR":
            tax_id = f"{tax_id}1"
            tax_id += check_digits(tax_id)
        await desk.add_customer(
            {
                "tenant": tenant,
                "legal_name": name,
                "country": country,
                "tax_id": tax_id,
                "currency": currency,
            },
            actor="finance",
        )
    seats = {"model": "H100-SXM", "count": month.committed(), "site": "SP4"}
    for said in (
        {"tenant": "alfa", "term": "on_demand", "currency": "USD", "discount": Decimal("0.1")},
        {"tenant": "beta", "term": "on_demand", "currency": "USD", "list": "beta-2026", "minimum": Decimal(60_000)},
        {
            "tenant": "gama", "term": "reserved", "currency": "BRL", "list": "tabela-reais", "months": 12,
            "commitments": [seats], "promise": PROMISE,
        },
        {"tenant": "delta", "term": "spot", "currency": "USD", "discount": Decimal("0.05")},
        {"tenant": "epsilon", "term": "research", "currency": "BRL", "list": "tabela-reais"},
    ):  # fmt: skip
        unsaid: dict[str, Any] = {
            "name": f"{said['tenant']}-{said['term'].replace('_', '-')}",  # type: ignore[attr-defined]
            "project": None, "from_at": BEGIN, "until_at": None, "months": None, "list": None, "minimum": None,
            "discount": Decimal(0), "commitments": [], "promise": [],
        }  # fmt: skip
        await desk.add_contract(unsaid | said, actor="finance")
    await Bulletins(truth).keep(bulletins(datetime.now(UTC).date()))


def bulletins(until: date) -> list[Bulletin]:
    """A walk of the dollar from September on; the bank is silent on days off. Simulated."""
    chance = random.Random(7)
    made, sell, on = [], Decimal("5.3412"), date(2026, 9, 15)
    while on <= until:
        if on.isoweekday() < 6:
            sell += Decimal(chance.randrange(-400, 401)) / 10_000
            open_day = on not in HOLIDAYS
            made.append(
                Bulletin(
                    day=on,
                    sell=sell if open_day else None,
                    bulletin_at=datetime(on.year, on.month, on.day, 16, 4, tzinfo=UTC) if open_day else None,
                    fetched_at=datetime(2027, 1, 1, tzinfo=UTC),
                    digest="simulated",
                )
            )
        on += timedelta(days=1)
    return made


async def tell_tokens(truth: Truth, month: Recorded, *, second: bool, seed: int = 3) -> None:
    """The gateway's counts of one half in any order, a third of them twice; in the end the first half once more."""
    chance = random.Random(seed)
    sent = [event for event in month.events if (event.from_at >= HALF) is second]
    sent += [event for event in sent if chance.random() < 0.33]
    chance.shuffle(sent)
    groups = [sent[first : first + 50] for first in range(0, len(sent), 50)]
    if second:
        groups += [[month.correction], [event for event in month.events if event.from_at < HALF]]
    for group in groups:
        await UsageEvents(truth).record(group)


async def first_half(truth: Truth, month: Recorded) -> None:
    """The fleet, and what agents had told of it when October was half over."""
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        await session.execute("UPDATE meters SET began_at = %s", (INSTALLED,))
        await _insert(session, "tenants", [
            {"tenant_id": f"ten_{name}", "name": name, "house": name == "house", "created_at": INSTALLED}
            for name in (*TENANTS, "house")
        ])  # fmt: skip
        await _insert(session, "projects", [
            {"project_id": f"prj_{name}", "tenant_id": f"ten_{name}", "name": "main", "created_at": INSTALLED}
            for name in (*TENANTS, "house")
        ])  # fmt: skip
        await _insert(
            session,
            "sites",
            [{"site_id": site, "kind": "colocation"} for site in dict.fromkeys(h[0] for h in HALLS)],
        )
        await _insert(session, "nodes", [
            {
                "node_id": f"nod_{node.name}", "name": node.name, "site_id": node.site, "address": "10.0.0.1",
                "state": "retired", "health": "healthy", "isolation": "user", "cores": 96, "memory_mib": 2_000_000,
                "disk_mib": 20_000_000, "boot_id": node.name, "version": "", "protocol": 1, "desired_version": 1,
                "joined_at": node.installed_at, "seen_at": GONE, "simulated": False, "repair_steps": "{}",
                "chassis_shared": True,
            }
            for node in month.nodes
        ])  # fmt: skip
        gone = {move.subject for move in month.moves if move.to_state == "retired"}
        for node in month.nodes:
            for one in node.accelerators:
                await session.execute(
                    "INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state, round_id,"
                    " purchase_id, installed_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (
                        f"acc_{one.serial}", f"nod_{node.name}", node.model, one.serial, one.seat - 1,
                        "retired" if one.serial in gone else "in_service", node.round_id, f"pur_{node.round_id}",
                        one.installed_at,
                    ),
                )  # fmt: skip
        nodes = {node.name for node in month.nodes}
        for move in month.moves:
            kind, subject = (
                ("node", f"nod_{move.subject}") if move.subject in nodes else ("accelerator", move.subject)
            )
            await session.execute(
                "INSERT INTO events (at, subject_kind, subject_id, event, from_state, to_state, actor)"
                " VALUES (%s, %s, %s, 'move', %s, %s, %s)",
                (move.at, kind, subject, move.from_state, move.to_state, move.actor),
            )
        await _beside(session)
        stays = [
            (run, no) for run in month.runs for no, stay in enumerate(run.stays, 1) if stay.granted_at < HALF
        ]
        await _write(session, stays, known=HALF)


async def second_half(truth: Truth, month: Recorded) -> None:
    """Everything else that happened, and how what went on at half time ended."""
    async with truth.transaction() as session:
        await session.execute("RESET ROLE")
        going, coming = [], []
        for run in month.runs:
            for no, stay in enumerate(run.stays, 1):
                if stay.granted_at >= HALF:
                    coming.append((run, no))
                elif stay.released_at > HALF:
                    going.append((run, no))
        for run, no in going:
            stay = run.stays[no - 1]
            await session.execute(
                "UPDATE leases SET state = 'released', released_at = %s, observed_from = %s, observed_until = %s"
                " WHERE run_id = %s AND attempt_no = %s",
                (stay.released_at, stay.seen_from, stay.seen_until, _id(run), no),
            )
            await session.execute(
                "UPDATE lease_accelerators SET during = tstzrange(lower(during), %s)"
                " WHERE lease_id = ANY(%s)",
                (stay.released_at, [_lease_id(run, no, rank) for rank in range(len(stay.places))]),
            )
            await session.execute(
                "UPDATE attempts SET state = 'ended', reason = %s, ended_at = %s WHERE run_id = %s AND attempt_no = %s",
                (stay.reason, stay.released_at, _id(run), no),
            )
        await _write(session, coming, known=GONE)
        for state in ("stopping", "succeeded"):
            await session.execute(
                "UPDATE runs SET state = %s WHERE state NOT IN ('succeeded', 'failed')", (state,)
            )
        # Each of these facts came before its hour was over; only here do they come all at once.
        await session.execute("DELETE FROM late_facts")
        await session.execute("ANALYZE")


async def spooled(truth: Truth, run: Run) -> None:
    """What a node reports of a run when it is heard again."""
    async with truth.transaction() as session:
        await _write(session, [(run, 1)], known=GONE)
        for state in ("stopping", "succeeded"):
            await session.execute("UPDATE runs SET state = %s WHERE run_id = %s", (state, _id(run)))


def _id(run: Run) -> str:
    return f"run_{run.name}"


def _lease_id(run: Run, no: int, rank: int) -> str:
    return f"lea_{run.name}_{no}_{rank}"


async def _beside(session: Session) -> None:
    """A reservation, a maintenance, a burn-in, capacity that was free in sum and in no place, what health saw."""
    await session.execute(
        "INSERT INTO reservations (reservation_id, tenant_id, project_id, name, nodes, accelerators, model, site_id,"
        " from_at, until_at, kind, state, used_at, made_by, ended_at) VALUES ('rsv_1', 'ten_gama', 'prj_gama',"
        " 'treino-outubro', 2, 8, 'H100-SXM', 'SP4', %s, %s, 'take_or_pay', 'completed', %s, 'gama', %s)",
        (day(4, 6), day(6, 19), day(4, 6), day(6, 19)),
    )
    await session.execute(
        "INSERT INTO maintenances (maintenance_id, site_id, from_at, until_at, notice_s, why, state, made_by, ended_at)"
        " VALUES ('mnt_1', NULL, %s, %s, 86400, 'firmware', 'completed', 'operator', %s)",
        (day(20, 2), day(20, 8), day(20, 8)),
    )
    for model, site, from_at, hours in (("L40S", "SP4", day(8, 3), 2.5), ("MI300X", "DC2", day(17, 20.1), 7)):
        until_at = from_at + timedelta(hours=hours)
        await session.execute(
            "INSERT INTO fragmentations (model, site_id, from_at, seen_at, until_at) VALUES (%s, %s, %s, %s, %s)",
            (model, site, from_at, until_at, until_at),
        )
    await session.execute(
        "INSERT INTO witnesses (event_id, node_id, at, kind, code, severity, sentence, judged)"
        " VALUES ('wit_1', 'nod_sp4-h100-1', %s, 'xid', 79, 'critical', 'fell off the bus', true)",
        (day(14, 11.12),),
    )


async def _write(session: Session, stays: Sequence[tuple[Run, int]], *, known: datetime) -> None:
    """Runs, attempts, leases and checkpoints, as they are known at an instant."""
    runs: dict[str, Mapping[str, Any]] = {}
    attempts, leases, held, saved = [], [], [], []
    for run, no in stays:
        stay = run.stays[no - 1]
        whose = {"tenant_id": f"ten_{run.tenant}", "project_id": f"prj_{run.tenant}", "run_id": _id(run)}
        runs[_id(run)] = {
            **whose, "name": run.name, "kind": run.kind, "priority": 50, "files": [], "progress": {}, "result": {},
            "spec": {"spot": run.spot, "reservation": run.reservation}, "state": "running", "attempt_no": no,
            "errors": 0, "interruptions": 0, "restarts": 0, "submitted_by": run.tenant, "submitted_at": stay.granted_at,
            "enqueued_at": stay.granted_at,
        }  # fmt: skip
        over = stay.released_at <= known
        whose["attempt_no"] = no  # type: ignore[assignment]
        attempts.append(
            {
                **whose, "nodes": len(stay.places), "rendezvous_port": 1, "granted_at": stay.granted_at, "stop": False,
                "state": "ended" if over else "running", "reason": stay.reason.value if over else None,
            }
        )  # fmt: skip
        for rank, (node, serials) in enumerate(stay.places):
            lease_id = _lease_id(run, no, rank)
            leases.append(_lease(stay, over, known) | {
                **whose, "lease_id": lease_id, "node_id": f"nod_{node.name}", "node_rank": rank, "model": node.model,
            })  # fmt: skip
            end = stay.released_at if over else stay.granted_at + timedelta(days=14)
            held += [
                (lease_id, serial, whose["tenant_id"], whose["project_id"], stay.granted_at, end)
                for serial in serials
            ]
        saved += [
            {
                **whose, "event_id": f"ckp_{_id(run)}_{no}", "step": 1, "path": "p", "digest": "0", "bytes": 1,
                "save_s": 1, "stall_ms": 1, "committed_at": at,
            }
            for at in stay.saved_at
            if at < known
        ]  # fmt: skip
    known_runs = await session.execute("SELECT run_id FROM runs")
    there = {row["run_id"] for row in await known_runs.fetchall()}
    await _insert(session, "runs", [row for run_id, row in runs.items() if run_id not in there])
    await _insert(session, "attempts", attempts)
    await _insert(session, "leases", leases)
    await session.execute(
        "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
        " SELECT h.lease_id, a.accelerator_no, h.tenant_id, h.project_id, tstzrange(h.from_at, h.until_at)"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[])"
        " AS h (lease_id, serial, tenant_id, project_id, from_at, until_at) JOIN accelerators a USING (serial)",
        [list(column) for column in zip(*held, strict=True)],
    )
    await _insert(session, "checkpoints", saved)


def _lease(stay: Stay, over: bool, known: datetime) -> dict[str, Any]:
    seen = over or stay.seen_from < known
    return {
        "state": "released" if over else "active", "granted_at": stay.granted_at,
        "ends_at": stay.granted_at + timedelta(days=14), "released_at": stay.released_at if over else None,
        "observed_from": stay.seen_from if seen else None,
        "observed_until": min(stay.seen_until, known) if seen else None, "memory_mib": 0, "disk_mib": 0, "cores": 0,
    }  # fmt: skip


async def _insert(session: Session, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        names = ", ".join(rows[0])
        await session.execute(
            f"INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, %s::json)",  # type: ignore[arg-type]
            (json.dumps(rows, default=str),),
        )
