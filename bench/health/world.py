"""A fleet on a virtual clock: what it would be measured to be, tick by tick, and what the judge does about it.

Invariant: everything judged goes through the code that judges in production (scan, finding_of, gather, weigh, course);
here are only the devices, the clock, and the hands that carry out what the playbook says.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from baseai.fleet.health.evidence import (
    CEASED,
    EXPIRED,
    REPAIRED,
    Evidence,
    Finding,
    Subject,
    finding_of,
    gather,
)
from baseai.fleet.health.playbook import Begin, Case, Crowd, Drop, GiveUp, Hold, Steer, Tell, course
from baseai.fleet.health.repair import BY_AGENT, Repair, RepairState, Step
from baseai.fleet.health.rule import Policy
from baseai.fleet.health.scan import TICK_MS, Memory, scan
from baseai.fleet.health.verdict import Sign, node_verdict, verdicts_of, weigh
from baseai.fleet.node import NodeEvent, NodeState, moved
from baseai.ground.identity import NodeId
from baseai.telemetry.field import ACCELERATOR, NODE, PORT, Family, State
from baseai.telemetry.kernel_line import kernel_line_of
from baseai.telemetry.sample import code_of
from baseai.telemetry.store import Latest, Place
from baseai.telemetry.witness import Witness

BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
DEVICES = PORTS = 8
DRAIN_S = 40.0  # what a checkpoint takes
TEST_S = 600.0  # re-entry tests
REPAIR_S: Mapping[Step, float] = {
    Step.FABRIC: 60, Step.RESET: 180, Step.REBOOT: 900, Step.POWER_CYCLE: 900, Step.RESEAT: 4 * 3600,
    Step.INSPECT: 4 * 3600, Step.RMA: 24 * 3600,
}  # fmt: skip
COUNTERS = frozenset({"ecc_ce", "ecc_ue", "link_err", "link_downed", "symbol_err", "rx_err"})


@dataclass(slots=True, kw_only=True)
class Machine:
    """One node as it really is, and as health knows it."""

    node_id: NodeId
    number: int
    model: str
    tenant: str | None
    state: NodeState = NodeState.READY
    ours: bool = False
    since: datetime = BEGAN
    leases: int = 1
    open: list[Repair] = field(default_factory=list)
    ended: list[Repair] = field(default_factory=list)
    due_at: datetime | None = None  # when its present state ends: drained, repaired or tested
    silent_until: datetime = BEGAN  # nothing at all is measured on it
    quiet: dict[int, datetime] = field(
        default_factory=dict
    )  # device → until when nothing is heard of it alone


class World:
    """All machines, their columns, and the judge's memory."""

    def __init__(
        self, policy: Policy, readings: Mapping[str, float], *, nodes: int, chance: random.Random
    ) -> None:
        self.policy = policy
        self.now = BEGAN
        self.chance = chance
        self.noise = np.random.default_rng(chance.getrandbits(32))
        self.machines = [
            Machine(
                node_id=NodeId(f"nod_{n:04d}"), number=n, model="MI300X" if n % 8 == 7 else "H100-SXM",
                tenant=f"tenant-{n % 5}" if n % 10 else None, leases=int(n % 10 > 0),
            )
            for n in range(nodes)
        ]  # fmt: skip
        self.by_id = {machine.node_id: machine for machine in self.machines}
        places = [Place(node_id=m.node_id, site="hall", model=m.model) for m in self.machines]
        self.keys: dict[str, tuple[str, ...]] = {
            "accelerator": tuple(f"{m.node_id}-{d}" for m in self.machines for d in range(DEVICES)),
            "node": tuple(m.node_id for m in self.machines),
            "port": tuple(f"{m.node_id}/mlx5_{p}/1" for m in self.machines for p in range(PORTS)),
        }
        self.places = {
            "accelerator": tuple(place for place in places for _ in range(DEVICES)),
            "node": tuple(places),
            "port": tuple(place for place in places for _ in range(PORTS)),
        }
        self.values = {
            name: np.tile(_row(family, told), (len(self.keys[name]), 1))
            for name, family, told in (
                ("accelerator", ACCELERATOR, readings), ("node", NODE, NODE_WELL), ("port", PORT, PORT_WELL),
            )
        }  # fmt: skip
        self.base = {name: values.copy() for name, values in self.values.items()}
        self.spread = self.noise.normal(0, 1.5, len(self.keys["accelerator"]))
        self.ts_ms = {name: np.zeros(len(keys), np.int64) for name, keys in self.keys.items()}
        self.pci = {
            key: f"0000:{0x1B + 16 * (n % DEVICES):02x}:00.0"
            for n, key in enumerate(self.keys["accelerator"])
        }
        self.evidence: dict[str, Evidence] = {}
        self.memory: dict[str, Memory] = {}
        self.said: list[tuple[NodeId, Witness]] = []
        self.deaths: list[Finding] = []
        self.signs: tuple[Sign, ...] = ()
        self.drained: list[tuple[datetime, NodeId, str]] = []
        self.cordoned: list[tuple[datetime, NodeId, str]] = []
        self.reboots: dict[NodeId, list[datetime]] = {}
        self.ticks = 0
        self.words = 0

    # ---- what happens to machines

    def put(self, family: str, row: int, name: str, value: float) -> None:
        """From now on that field reads so (a counter: by so much more)."""
        column = FAMILIES[family].index[name]
        if name in COUNTERS and value >= 0:
            self.values[family][row, column] += value
        else:
            self.values[family][row, column] = max(0.0, value)

    def well(self, family: str, row: int) -> None:
        """Gauges and flags read as they did in health; counters stay as they are."""
        gauges = [c for c, each in enumerate(FAMILIES[family].fields) if each.name not in COUNTERS]
        self.values[family][row, gauges] = self.base[family][row, gauges]

    def say(self, machine: Machine, line: str, *, kind: str = "kernel", severity: str = "warning") -> None:
        """A line of the kernel through its reader, or a word of the management controller or of a test."""
        key, code = None, None
        if kind == "kernel":
            read = kernel_line_of(line)
            if read is None:
                return
            kind, code, severity = read.kind, read.code, read.severity
            key = self._serial(machine, read.device)
        elif kind == "test":
            key = f"{machine.node_id}-0"
        self.words += 1
        witness = Witness(
            event_id=f"wit_{self.words}",
            at=self.now,
            kind=kind,
            key=key,
            code=code,
            severity=severity,
            sentence=line,
        )
        self.said.append((machine.node_id, witness))

    def afid(self, machine: Machine, device: int, severity: str) -> None:
        self.words += 1
        key = f"{machine.node_id}-{device}"
        witness = Witness(
            event_id=f"wit_{self.words}", at=self.now, kind="afid", key=key, code=30, severity=severity,
            sentence="CPER record",
        )  # fmt: skip
        self.said.append((machine.node_id, witness))

    def die(self, machine: Machine, sentence: str) -> None:
        """A run's processes end here, and nobody says why."""
        self.deaths.append(
            Finding(rule_id="run_died", subject=Subject(node_id=machine.node_id), at=self.now, witness="runs",
                    sentence=sentence, tenant_id=machine.tenant)
        )  # fmt: skip

    def _serial(self, machine: Machine, device: str | None) -> str | None:
        if device is None:
            return None
        wanted = device.lower().removesuffix(".0")
        for d in range(DEVICES):
            key = f"{machine.node_id}-{d}"
            if self.pci[key].removesuffix(".0") == wanted:
                return key
        return None

    # ---- a tick

    def tick(self) -> None:
        """Ten seconds pass, everything is measured, and the judge judges."""
        self.now += timedelta(milliseconds=TICK_MS)
        self.ticks += 1
        self._live()
        now_ms = round(self.now.timestamp() * 1000)
        standing: dict[str, set[str]] = {}
        for each in self.evidence.values():
            if each.ended_at is None:
                standing.setdefault(each.rule_id, set()).add(each.subject.key)
        groups = {
            f"{m.node_id}-{d}": f"run-{m.number // 4}"
            for m in self.machines
            if m.leases
            for d in range(DEVICES)
        }
        found: list[Finding] = []
        ceased: set[tuple[str, str]] = set()
        for name in FAMILIES:
            scanned = scan(
                self.policy,
                self.memory.get(name, Memory()),
                self._latest(name, now_ms),
                standing=standing,
                groups=groups,
                now_ms=now_ms,
            )
            self.memory[name] = scanned.memory
            found += [self._held(each) for each in scanned.found]
            ceased |= set(scanned.ceased)
        for node_id, witness in self.said:
            finding = finding_of(self.policy, witness, node_id, tenant_id=self.by_id[node_id].tenant)
            if finding is not None:
                found.append(finding)
        news = gather(self.policy, [*found, *self.deaths], self.evidence.values())
        self.said, self.deaths = [], []
        self.evidence |= {each.evidence_id: each for each in (*news.new, *news.grown)}
        for key, each in self.evidence.items():
            if each.ended_at is None and (each.rule_id, each.subject.key) in ceased:
                self.evidence[key] = replace(each, ended_at=self.now, ended_by=CEASED)
            elif each.ended_at is None and not each.stands(self.policy.rule(each.rule_id), self.now):
                self.evidence[key] = replace(each, ended_at=self.now, ended_by=EXPIRED)
        self.signs = weigh(self.policy, self.evidence.values(), self.now)
        self._act()

    def _held(self, finding: Finding) -> Finding:
        return replace(finding, tenant_id=self.by_id[finding.subject.node_id].tenant)

    def _latest(self, name: str, now_ms: int) -> Latest:
        family = FAMILIES[name]
        per = {"accelerator": DEVICES, "node": 1, "port": PORTS}[name]
        heard = np.ones(len(self.keys[name]), np.bool_)
        for machine in self.machines:
            if machine.silent_until > self.now:
                heard[machine.number * per : (machine.number + 1) * per] = False
            elif name == "accelerator" and machine.quiet:
                for device, until in machine.quiet.items():
                    heard[machine.number * per + device] = until <= self.now
        self.ts_ms[name] = np.where(heard, now_ms, self.ts_ms[name])
        values = self.values[name].copy()
        if name == "accelerator":
            for field_name, scale in (("temp_c", 1.0), ("temp_mem_c", 1.0), ("clock_mhz", 4.0)):
                column = family.index[field_name]
                values[:, column] += scale * (self.spread + self.noise.normal(0, 0.5, len(values)))
        codes = np.where(np.isnan(values), code_of(State.ABSENT), code_of(State.VALUE)).astype(np.uint8)
        return Latest(
            family=family, keys=self.keys[name], places=self.places[name], ts_ms=self.ts_ms[name].copy(), values=values,
            codes=codes,
        )  # fmt: skip

    # ---- what is done

    def _live(self) -> None:
        """Drains, repairs and tests come to their end."""
        for machine in self.machines:
            if machine.due_at is None or machine.due_at > self.now:
                continue
            machine.due_at = None
            if machine.state is NodeState.DRAINING:
                machine.leases = 0
            elif machine.state is NodeState.REPAIRING and machine.open:
                self._mended(machine)
            elif machine.state is NodeState.VERIFYING:
                machine.state, machine.ours, machine.since = NodeState.READY, False, self.now
                machine.leases = int(machine.tenant is not None)

    def _mended(self, machine: Machine) -> None:
        opened = machine.open.pop(0)
        repair = replace(opened, state=RepairState.DONE, ended_at=self.now)
        machine.ended.append(repair)
        if repair.step is Step.REBOOT and opened.state is RepairState.ORDERED:  # by itself, at nobody's word
            self.reboots.setdefault(machine.node_id, []).append(self.now)
        self.heal(machine)
        for key, each in self.evidence.items():
            asks = self.policy.rule(each.rule_id).action.rank > 0
            if each.subject.node_id == machine.node_id and each.ended_at is None and asks:
                self.evidence[key] = replace(each, ended_at=self.now, ended_by=REPAIRED)

    def heal(self, machine: Machine) -> None:
        """What ailed it is gone."""
        machine.quiet.clear()
        machine.silent_until = self.now
        for family, per in (("accelerator", DEVICES), ("node", 1), ("port", PORTS)):
            for row in range(machine.number * per, (machine.number + 1) * per):
                self.well(family, row)

    def _act(self) -> None:
        verdicts = verdicts_of(self.signs)
        cases = []
        for machine in self.machines:
            verdict = node_verdict(verdicts, machine.node_id)
            if verdict.worst is None and machine.state is NodeState.READY:
                continue
            cases.append(
                Case(
                    node_id=machine.node_id, site="hall", state=machine.state, leases=machine.leases,
                    tenants=frozenset({machine.tenant} if machine.tenant and machine.leases else ()), verdict=verdict,
                    ours=machine.ours, since=machine.since, repairs=tuple(machine.open), history=tuple(machine.ended),
                    able=frozenset(BY_AGENT),
                )
            )  # fmt: skip
        for move in course(cases, self._crowd(), limits=self.policy.limits, now=self.now):
            machine = self.by_id[move.node_id]
            match move:
                case Steer(event=event, sentence=sentence):
                    self._steer(machine, event, sentence)
                case Begin(remedy=remedy):
                    state = RepairState.PROPOSED if remedy.needs_approval else RepairState.APPROVED
                    machine.open.append(
                        Repair(
                            repair_id=f"rep_{self.words}_{self.ticks}",
                            node_id=machine.node_id,
                            serials=remedy.serials,
                            step=remedy.step,
                            state=state,
                            by_agent=remedy.by_agent,
                            rule_id=remedy.rule_id,
                            opened_at=self.now,
                            drains=remedy.drains,
                        )
                    )
                    if not remedy.drains:  # a ticket: a person closes it in time
                        machine.ended.append(
                            replace(machine.open.pop(), state=RepairState.DONE, ended_at=self.now)
                        )
                case Tell(repair_id=repair_id):
                    machine.open = [
                        replace(each, state=RepairState.ORDERED, ordered_at=self.now)
                        if each.repair_id == repair_id
                        else each
                        for each in machine.open
                    ]
                case Drop():
                    machine.open.clear()
                case GiveUp() | Hold():
                    pass

    def _steer(self, machine: Machine, event: NodeEvent, sentence: str) -> None:
        after = moved(machine.state, event)
        assert after is not None, (machine.state, event)
        machine.state, machine.ours, machine.since = after, True, self.now
        if event is NodeEvent.DRAIN:
            self.drained.append((self.now, machine.node_id, sentence))
            machine.due_at = self.now + timedelta(seconds=DRAIN_S)
        elif event is NodeEvent.CORDON:
            self.cordoned.append((self.now, machine.node_id, sentence))
        elif event is NodeEvent.REPAIR:
            step = machine.open[0].step if machine.open else Step.INSPECT
            machine.due_at = self.now + timedelta(seconds=REPAIR_S[step])
        elif event is NodeEvent.VERIFY:
            machine.due_at = self.now + timedelta(seconds=TEST_S)

    def _crowd(self) -> Crowd:
        crowd = Crowd(tenant_nodes={}, site_nodes={"hall": len(self.machines)})
        nodes: dict[str, int] = {}
        for machine in self.machines:
            if machine.tenant and machine.leases:
                nodes[machine.tenant] = nodes.get(machine.tenant, 0) + 1
                if machine.state is NodeState.DRAINING:
                    crowd.tenant_taken[machine.tenant] = crowd.tenant_taken.get(machine.tenant, 0) + 1
            if machine.state in (NodeState.CORDONED, NodeState.DRAINING):
                crowd.site_taken["hall"] = crowd.site_taken.get("hall", 0) + 1
        crowd.tenant_nodes = nodes
        return crowd

    def rules_since(self, machine: Machine, at: datetime) -> set[str]:
        """The rules that stand against a machine or anything in it, by evidence that came after that instant."""
        return {
            sign.rule_id
            for sign in self.signs
            if sign.subject.node_id == machine.node_id
            and any(self.evidence[evidence_id].last_at >= at for evidence_id in sign.evidence_ids)
        }

    def rest(self, until: datetime) -> None:
        """Nothing of note happens until then: the clock is put forward, in steps in which repairs end."""
        while self.now < until:
            due = [machine.due_at for machine in self.machines if machine.due_at is not None]
            self.now = max(self.now, min([until, *due]))
            if self.now >= until:
                return
            self.tick()


FAMILIES: Mapping[str, Family] = {"accelerator": ACCELERATOR, "node": NODE, "port": PORT}
NODE_WELL = {
    "temp_inlet_c": 22.0,
    "psu_ok": 6,
    "psu_total": 6,
    "leak": 0,
    "accel_seen": 8,
    "accel_expected": 8,
}
PORT_WELL = {"up": 1, "rate_bps": 4e11, "link_downed": 0, "symbol_err": 0, "rx_err": 0}


def _row(family: Family, told: Mapping[str, float]) -> np.ndarray:
    row = np.full(len(family.fields), np.nan)
    for name, value in told.items():
        row[family.index[name]] = value
    return row


def rows_of(machine: Machine, family: str) -> Sequence[int]:
    per = {"accelerator": DEVICES, "node": 1, "port": PORTS}[family]
    return range(machine.number * per, (machine.number + 1) * per)
