"""Small fleets as health sees them: readings as columns, witnesses, findings, and a node's case."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from baseai.fleet.health.evidence import Evidence, Finding, Subject, gather
from baseai.fleet.health.playbook import Case, Crowd
from baseai.fleet.health.repair import Repair, RepairState, Step
from baseai.fleet.health.rule import shipped_policy
from baseai.fleet.health.scan import TICK_MS, Memory, scan
from baseai.fleet.health.verdict import node_verdict, verdicts_of, weigh
from baseai.fleet.node import NodeState
from baseai.ground.identity import NodeId
from baseai.telemetry.field import ACCELERATOR, NODE, PORT, Family, State
from baseai.telemetry.sample import code_of
from baseai.telemetry.store import Latest, Place
from baseai.telemetry.witness import Witness

POLICY = shipped_policy()
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
NODE_ID = NodeId("nod_1")
WELL: Mapping[str, Mapping[str, float]] = {
    "accelerator": {
        "util_pct": 90, "temp_c": 60, "temp_mem_c": 70, "clock_mhz": 1980, "throttle_bits": 0, "mem_used_b": 6e10,
        "ecc_ce": 0, "ecc_ue": 0, "row_remap": 0, "link_err": 0, "fault_code": 0, "power_w": 600,
    },
    "node": {"temp_inlet_c": 22, "psu_ok": 6, "psu_total": 6, "leak": 0, "accel_seen": 8, "accel_expected": 8},
    "port": {"up": 1, "rate_bps": 4e11, "link_downed": 0, "symbol_err": 0, "rx_err": 0},
}  # fmt: skip


def later(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


class Bench:
    """One node of eight accelerators, read tick by tick; what it finds is gathered as the shell would."""

    def __init__(self, *, model: str = "H100-SXM", serials: int = 8, family: Family = ACCELERATOR) -> None:
        self.family = family
        self.keys = {
            ACCELERATOR.name: [f"gpu-{number}" for number in range(serials)],
            NODE.name: [NODE_ID],
            PORT.name: [f"{NODE_ID}/mlx5_0/1"],
        }[family.name]
        self.place = Place(node_id=NODE_ID, site="local", model=model)
        self.memory = Memory()
        self.at = BEGAN
        self.evidence: list[Evidence] = []
        self.ts_ms = dict.fromkeys(self.keys, 0)
        self.values: dict[str, dict[str, float]] = {key: dict(WELL[family.name]) for key in self.keys}
        self.groups = dict.fromkeys(self.keys, "run/1")

    def tick(
        self,
        changed: Mapping[str, Mapping[str, float | None]] | None = None,
        *,
        silent: Iterable[str] = (),
        count: int = 1,
    ) -> list[Finding]:
        """So many ticks with these changes on top of well readings; `None` is a reading that is absent."""
        found: list[Finding] = []
        for _ in range(count):
            self.at += timedelta(milliseconds=TICK_MS)
            now_ms = round(self.at.timestamp() * 1000)
            self.ts_ms.update({key: now_ms for key in self.keys if key not in set(silent)})
            values = np.full((len(self.keys), len(self.family.fields)), np.nan)
            codes = np.full(values.shape, code_of(State.ABSENT), np.uint8)
            for row, key in enumerate(self.keys):
                for name, value in {**self.values[key], **(changed or {}).get(key, {})}.items():
                    column = self.family.index[name]
                    if value is not None:
                        values[row, column], codes[row, column] = value, code_of(State.VALUE)
            latest = Latest(
                family=self.family, keys=tuple(self.keys), places=(self.place,) * len(self.keys),
                ts_ms=np.array([self.ts_ms[key] for key in self.keys], np.int64), values=values, codes=codes,
            )  # fmt: skip
            standing: dict[str, set[str]] = {}
            for each in self.evidence:
                if each.ended_at is None:
                    standing.setdefault(each.rule_id, set()).add(each.subject.key)
            scanned = scan(POLICY, self.memory, latest, standing=standing, groups=self.groups, now_ms=now_ms)
            self.memory = scanned.memory
            self.evidence = gathered(scanned.found, self.evidence)
            gone = set(scanned.ceased)
            self.evidence = [each for each in self.evidence if (each.rule_id, each.subject.key) not in gone]
            found += scanned.found
        return found

    def standing(self) -> dict[str, str]:
        """Rule → action of the signs that stand now."""
        return {sign.rule_id: sign.action.value for sign in weigh(POLICY, self.evidence, self.at)}


def gathered(findings: Iterable[Finding], known: Sequence[Evidence] = ()) -> list[Evidence]:
    """All evidence once the findings are taken up."""
    news = gather(POLICY, findings, known)
    by_id = {each.evidence_id: each for each in (*known, *news.grown, *news.new)}
    return list(by_id.values())


def finding(
    rule_id: str, at_s: float = 0.0, *, serial: str | None = "gpu-0", tenant: str | None = None, **said: Any
) -> Finding:
    return Finding(
        rule_id=rule_id, subject=Subject(node_id=NODE_ID, serial=serial), at=later(at_s),
        witness=said.pop("witness", "kernel"), sentence=said.pop("sentence", rule_id), tenant_id=tenant, **said,
    )  # fmt: skip


def signs(*findings: Finding, at_s: float) -> dict[str, str]:
    """Rule → action of what stands at that instant."""
    return {sign.rule_id: sign.action.value for sign in weigh(POLICY, gathered(findings), later(at_s))}


def witness(
    kind: str, sentence: str = "", *, code: int | None = None, severity: str = "critical", key: str | None = "gpu-0",
    at_s: float = 0.0, **payload: Any,
) -> Witness:  # fmt: skip
    return Witness(
        event_id=f"{kind}-{code}-{at_s}-{sentence}", at=later(at_s), kind=kind, key=key, code=code,
        severity=severity, sentence=sentence, payload=payload,
    )  # fmt: skip


def case(
    state: str = "ready", *findings: Finding, at_s: float = 60.0, node_id: str = NODE_ID, **differing: Any
) -> Case:
    """A node with that evidence against it."""
    verdicts = verdicts_of(weigh(POLICY, gathered(findings), later(at_s)))
    fields: dict[str, Any] = {
        "node_id": NodeId(node_id), "site": "local", "state": NodeState(state), "leases": 0, "tenants": frozenset(),
        "verdict": node_verdict(verdicts, NODE_ID), "ours": True, "since": BEGAN,
    }  # fmt: skip
    return Case(**{**fields, **differing})


def crowd(**differing: Any) -> Crowd:
    return Crowd(**{"tenant_nodes": {"acme": 100}, "site_nodes": {"local": 100}, **differing})


def repair(
    step: str, state: str = "done", *, opened_s: float = 0.0, ended_s: float | None = 30.0, **differing: Any
) -> Repair:
    fields: dict[str, Any] = {
        "repair_id": f"rep_{step}_{opened_s}", "node_id": NODE_ID, "serials": ("gpu-0",), "step": Step(step),
        "state": RepairState(state), "by_agent": True, "rule_id": "xid.95", "opened_at": later(opened_s),
        "ended_at": None if ended_s is None else later(ended_s),
    }  # fmt: skip
    return Repair(**{**fields, **differing})
