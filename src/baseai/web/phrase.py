"""A phrase is how a code is said to people: a state, a reason, a constraint, a change of the demand.

Invariant: every code of the rooms below has its phrase here (a test walks the enums), as an English msgid of the
catalogue; a code nobody knows is shown as it is. Pure: `of` needs only a language.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from baseai.ground.quantity import shown_mib, shown_s
from baseai.web.language import Language


def N_(msgid: str) -> str:  # noqa: N802 - the name by which catalogues find msgids that are said later
    return msgid


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a state is told apart: by its word, by a shape, and only then by a tone."""

    word: str
    shape: str
    tone: str  # a class of the style sheet: good, busy, waiting, warn, bad, plain
    meaning: str = ""


RUN_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "queued": Look(
            word=N_("queued"), shape="◔", tone="waiting",
            meaning=N_("Waiting until enough accelerators are free at the same time."),
        ),
        "starting": Look(
            word=N_("starting"), shape="◑", tone="busy",
            meaning=N_("Accelerators are leased; its processes are being started."),
        ),
        "running": Look(
            word=N_("running"), shape="▶", tone="good", meaning=N_("Its processes run on every leased node."),
        ),
        "recovering": Look(
            word=N_("recovering"), shape="↻", tone="warn",
            meaning=N_("Something of it was lost; it goes on from the newest checkpoint by itself."),
        ),
        "preempted": Look(
            word=N_("preempted"), shape="◐", tone="warn",
            meaning=N_("It made room for another run and returns to the queue."),
        ),
        "stopping": Look(
            word=N_("stopping"), shape="◧", tone="busy", meaning=N_("Its last processes are ending."),
        ),
        "succeeded": Look(word=N_("succeeded"), shape="✓", tone="good", meaning=N_("It ended well.")),
        "failed": Look(
            word=N_("failed"), shape="✕", tone="bad", meaning=N_("It ended and will not be tried again."),
        ),
        "cancelled": Look(
            word=N_("cancelled"), shape="■", tone="plain", meaning=N_("It was stopped before its end."),
        ),
    }
)  # fmt: skip

NODE_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "onboarding": Look(word=N_("onboarding"), shape="◔", tone="waiting"),
        "burn_in": Look(word=N_("burn-in"), shape="◑", tone="busy"),
        "ready": Look(word=N_("ready"), shape="●", tone="good"),
        "cordoned": Look(word=N_("cordoned"), shape="⊘", tone="warn"),
        "draining": Look(word=N_("draining"), shape="◧", tone="warn"),
        "repairing": Look(word=N_("repairing"), shape="◆", tone="warn"),
        "verifying": Look(word=N_("verifying"), shape="◑", tone="busy"),
        "quarantined": Look(word=N_("quarantined"), shape="▲", tone="bad"),
        "rma": Look(word=N_("returned to its maker"), shape="◁", tone="plain"),
        "retired": Look(word=N_("retired"), shape="■", tone="plain"),
    }
)
HEALTHS: Mapping[str, Look] = MappingProxyType(
    {
        "healthy": Look(word=N_("healthy"), shape="✓", tone="good"),
        "suspect": Look(word=N_("suspect"), shape="▲", tone="warn"),
        "faulty": Look(word=N_("faulty"), shape="✕", tone="bad"),
    }
)
LEASE_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "granted": Look(word=N_("granted"), shape="◔", tone="waiting"),
        "active": Look(word=N_("active"), shape="▶", tone="good"),
        "unconfirmed": Look(word=N_("unconfirmed"), shape="▲", tone="warn"),
        "released": Look(word=N_("released"), shape="■", tone="plain"),
    }
)
ACCELERATOR_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "ordered": Look(word=N_("ordered"), shape="◌", tone="waiting"),
        "received": Look(word=N_("received"), shape="◔", tone="waiting"),
        "installed": Look(word=N_("installed"), shape="◑", tone="busy"),
        "in_service": Look(word=N_("in service"), shape="●", tone="good"),
        "failed": Look(word=N_("failed"), shape="✕", tone="bad"),
        "rma": Look(word=N_("returned to its maker"), shape="◁", tone="plain"),
        "retired": Look(word=N_("retired"), shape="■", tone="plain"),
    }
)
# Of a reading: State by its name, and what only a map knows.
READING_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "value": Look(word=N_("value"), shape="●", tone="good"),
        "absent": Look(
            word=N_("absent"), shape="◌", tone="waiting", meaning=N_("Its source said nothing of it this time."),
        ),
        "unsupported": Look(
            word=N_("unsupported"), shape="–", tone="plain",
            meaning=N_("The device or its source cannot say it, ever."),
        ),
        "blank": Look(
            word=N_("blank"), shape="◇", tone="warn",
            meaning=N_("The source gave its sign for “no reading”, or a number that cannot be."),
        ),
        "paused": Look(
            word=N_("paused"), shape="‖", tone="busy",
            meaning=N_("Somebody else holds the counters, as while a user runs a profiler."),
        ),
        "stale": Look(
            word=N_("silent"), shape="▲", tone="warn", meaning=N_("Nothing was heard of it for more than a minute."),
        ),
        "never": Look(word=N_("never heard"), shape="?", tone="plain", meaning=N_("No reading has ever come of it.")),
    }
)  # fmt: skip
COLLECTOR_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "ok": Look(word=N_("works"), shape="✓", tone="good"),
        "failing": Look(word=N_("failing"), shape="✕", tone="bad"),
        "off": Look(word=N_("off"), shape="■", tone="plain"),
    }
)
SEVERITIES: Mapping[str, Look] = MappingProxyType(
    {
        "info": Look(word=N_("note"), shape="●", tone="plain"),
        "warning": Look(word=N_("warning"), shape="▲", tone="warn"),
        "critical": Look(word=N_("critical"), shape="✕", tone="bad"),
    }
)
REPAIR_STATES: Mapping[str, Look] = MappingProxyType(
    {
        "proposed": Look(word=N_("proposed"), shape="◌", tone="waiting"),
        "approved": Look(word=N_("approved"), shape="◔", tone="busy"),
        "ordered": Look(word=N_("ordered of the node"), shape="◑", tone="busy"),
        "done": Look(word=N_("done"), shape="✓", tone="good"),
        "failed": Look(word=N_("did not help"), shape="✕", tone="bad"),
        "dismissed": Look(word=N_("dismissed"), shape="■", tone="plain"),
    }
)
LOOKS: Mapping[str, Mapping[str, Look]] = MappingProxyType(
    {
        "run": RUN_STATES, "node": NODE_STATES, "health": HEALTHS, "lease": LEASE_STATES,
        "accelerator": ACCELERATOR_STATES, "reading": READING_STATES, "collector": COLLECTOR_STATES,
        "severity": SEVERITIES, "repair": REPAIR_STATES,
    }
)  # fmt: skip

# What is measured, by family and field.
FIELDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "accelerator": MappingProxyType(
            {
                "util_pct": N_("utilisation"),
                "compute_pct": N_("multiprocessors active"),
                "tensor_pct": N_("matrix units active"),
                "membw_pct": N_("memory bandwidth"),
                "temp_c": N_("processor temperature"),
                "temp_mem_c": N_("memory temperature"),
                "clock_mhz": N_("processor clock"),
                "clock_mem_mhz": N_("memory clock"),
                "throttle_bits": N_("slowed down because of"),
                "throttle_ms": N_("time slowed down"),
                "mem_used_b": N_("memory in use"),
                "mem_total_b": N_("memory installed"),
                "power_w": N_("power"),
                "power_cap_w": N_("power limit"),
                "energy_j": N_("energy counter"),
                "pcie_tx_bps": N_("PCIe sent"),
                "pcie_rx_bps": N_("PCIe received"),
                "link_tx_bps": N_("links sent"),
                "link_rx_bps": N_("links received"),
                "ecc_ce": N_("memory errors corrected"),
                "ecc_ue": N_("memory errors not corrected"),
                "row_remap": N_("memory rows replaced"),
                "link_err": N_("link errors"),
                "fault_code": N_("fault code"),
            }
        ),
        "node": MappingProxyType(
            {
                "cpu_pct": N_("cores in use"),
                "mem_used_b": N_("memory in use"),
                "mem_total_b": N_("memory installed"),
                "disk_used_b": N_("disk in use"),
                "disk_total_b": N_("disk installed"),
                "disk_read_b": N_("disk read"),
                "disk_write_b": N_("disk written"),
                "net_rx_b": N_("Ethernet received"),
                "net_tx_b": N_("Ethernet sent"),
                "net_err": N_("Ethernet errors"),
                "ib_rx_b": N_("InfiniBand received"),
                "ib_tx_b": N_("InfiniBand sent"),
                "power_w": N_("power"),
                "energy_j": N_("energy counter"),
                "temp_inlet_c": N_("inlet air temperature"),
                "temp_cpu_c": N_("hottest processor, temperature"),
                "fan_pct": N_("fastest fan"),
                "psu_ok": N_("power supplies that work"),
                "psu_total": N_("power supplies installed"),
                "leak": N_("leaks reported"),
                "uptime_s": N_("up for"),
                "load1": N_("load, one minute"),
                "accel_seen": N_("accelerators seen"),
                "accel_expected": N_("accelerators expected"),
            }
        ),
        "port": MappingProxyType(
            {
                "rx_b": N_("received"),
                "tx_b": N_("sent"),
                "wait_ticks": N_("times it waited to send"),
                "rate_bps": N_("rate in force"),
                "up": N_("link active"),
                "symbol_err": N_("symbol errors"),
                "rx_err": N_("received with errors"),
                "discards": N_("thrown away while sending"),
                "link_downed": N_("times the link went down"),
                "retrans": N_("sent again or out of order"),
                "congestion": N_("congestion notices"),
            }
        ),
    }
)
PLOT_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "activity": N_("Utilisation"),
        "temperature": N_("Temperature"),
        "power": N_("Power"),
        "memory": N_("Memory"),
        "clocks": N_("Clocks and what slows them down"),
        "transfer": N_("PCIe and links"),
        "processors": N_("Cores of the node"),
        "main_memory": N_("Main memory"),
        "node_power": N_("Power of the node"),
        "node_temperature": N_("Temperature of the node"),
        "network": N_("Network"),
        "disk": N_("Disk"),
        "util_pct": N_("Utilisation"),
        "temp_c": N_("Temperature"),
        "power_w": N_("Power"),
        "mem_used_b": N_("Memory"),
        "each_util_pct": N_("Utilisation by accelerator"),
        "each_temp_c": N_("Temperature by accelerator"),
        "each_power_w": N_("Power by accelerator"),
        "each_mem_used_b": N_("Memory by accelerator"),
    }
)
ASPECTS: Mapping[str, str] = MappingProxyType(
    {
        "util_pct": N_("Utilisation"),
        "temp_c": N_("Temperature"),
        "power_w": N_("Power"),
        "mem_pct": N_("Memory"),
        "throttle_bits": N_("Throttling"),
        "health": N_("Health"),
        "holder": N_("In use by"),
    }
)
THROTTLES: Mapping[str, str] = MappingProxyType(
    {
        "POWER_CAP": N_("power limit"),
        "THERMAL_SW": N_("heat, by software"),
        "THERMAL_HW": N_("heat, by hardware"),
        "POWER_BRAKE": N_("power brake from outside"),
        "MEM_THERMAL": N_("heat of the memory"),
        "VR_THERMAL": N_("heat of the voltage regulators"),
        "RELIABILITY": N_("reliability limit"),
        "OTHER": N_("another reason"),
    }
)
ORIGINS: Mapping[str, str] = MappingProxyType(
    {"measured": N_("measured"), "estimated": N_("estimated"), "simulated": N_("simulated")}
)
TIERS: Mapping[str, str] = MappingProxyType(
    {
        "raw": N_("every sample"),
        "minute": N_("means of 1 minute"),
        "ten_minutes": N_("means of 10 minutes"),
        "hour": N_("means of 1 hour"),
    }
)
LOOKBACKS: Mapping[str, str] = MappingProxyType(
    {
        "15m": N_("15 minutes"),
        "1h": N_("1 hour"),
        "6h": N_("6 hours"),
        "24h": N_("24 hours"),
        "7d": N_("7 days"),
    }
)
# What happened at an instant of a plot; `%(amount)s` is by how much a counter rose, or the code.
MARKERS: Mapping[str, str] = MappingProxyType(
    {
        "fault_code": N_("fault code %(amount)s"),
        "ecc_ue": N_("memory errors not corrected: %(amount)s"),
        "ecc_ce": N_("memory errors corrected: %(amount)s"),
        "row_remap": N_("memory rows replaced"),
        "link_err": N_("link errors: %(amount)s"),
        "boot": N_("the node started anew"),
    }
)
METHODS: Mapping[str, str] = MappingProxyType(
    {
        "whole device": N_("whole device"),
        "partition": N_("partition"),
        "time slice": N_("time slice"),
    }
)
TESTS: Mapping[str, str] = MappingProxyType(
    {
        "gemm": N_("matrix products"),
        "gemm_wrong": N_("wrong rows of products"),
        "memory": N_("memory bandwidth reached"),
        "memory_wrong": N_("elements that came back wrong"),
        "bus": N_("bus bandwidth"),
        "bus_wrong": N_("elements delivered wrong"),
        "soak": N_("rate kept under load"),
        "ecc": N_("memory errors under load"),
        "heat": N_("highest temperature under load"),
        "throttle": N_("slowed down under load"),
    }
)
STEPS: Mapping[str, str] = MappingProxyType(
    {
        "fabric": N_("restart the fabric manager"),
        "reset": N_("reset the accelerator"),
        "reboot": N_("reboot the node"),
        "power_cycle": N_("power cycle"),
        "reseat": N_("reseat"),
        "rma": N_("return to its maker"),
        "inspect": N_("inspect"),
    }
)

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "submitted": N_("it was submitted"),
        "granted": N_("leases were granted"),
        "started": N_("its processes started"),
        "finished": N_("it finished"),
        "stopped_by_user": N_("its owner stopped it"),
        "stopped_by_operator": N_("an operator stopped it"),
        "scaled_in": N_("its service wanted fewer replicas"),
        "lease_ended": N_("its lease came to its end"),
        "command_failed": N_("its command failed"),
        "spec_wrong": N_("its specification cannot be carried out"),
        "out_of_memory": N_("it used more memory than it asked for"),
        "worker_lost": N_("a worker was lost"),
        "process_lost": N_("its process was lost"),
        "node_lost": N_("a node was lost"),
        "node_shutdown": N_("a node was shut down"),
        "start_failed": N_("it could not be started"),
        "rendezvous_failed": N_("its nodes could not find each other"),
        "peer_failed": N_("another node of the same attempt failed"),
        "disk_full": N_("a disk was full"),
        "preempted": N_("it made room for another run"),
        "drained": N_("its node was taken out of service"),
        "grant_stale": N_("what was granted had been taken meanwhile"),
        "recovered": N_("it recovered"),
    }
)

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "submit": N_("submitted"),
        "grant": N_("leases granted"),
        "begin": N_("began to run"),
        "recover": N_("recovery began"),
        "requeue": N_("back to the queue"),
        "evict": N_("asked to save and make room"),
        "extend": N_("goes on longer"),
        "preempt": N_("preempted"),
        "ask_to_stop": N_("asked to stop"),
        "stop": N_("stopping"),
        "cancel": N_("cancelled"),
        "succeed": N_("succeeded"),
        "fail": N_("failed"),
        "confirm": N_("lease confirmed by its node"),
        "lose_sight": N_("node silent: lease unconfirmed"),
        "release": N_("lease released"),
    }
)

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "operator": N_("operator"),
        "customer": N_("customer"),
        "finance": N_("finance"),
        "investor": N_("investor"),
        "viewer": N_("viewer"),
        "node": N_("node"),
    }
)

ISOLATIONS: Mapping[str, str] = MappingProxyType(
    {
        "none": N_("nothing: one tenant at a time"),
        "user": N_("a user of their own"),
        "container": N_("containers"),
    }
)

WAITS: Mapping[str, str] = MappingProxyType(
    {
        "short": N_("Too few nodes can take it now."),
        "held": N_("It fits now, but would put off who is ahead."),
        "never": N_("The nodes that are ready could not take it even when empty."),
        "clearing": N_(
            "A test or a run that gives way is being stopped for it; it starts as soon as that is gone."
        ),
        "booked": N_("It starts when its reservation begins."),
        "own_node": N_("It tests one node, and starts when nobody wants that node's accelerators."),
        "limit": N_(
            "Its queue, or one above it, holds all that it may; it starts when a run of that queue ends."
        ),
        "unknown_queue": N_("Its queue is there no more: make it again, or submit the run in another."),
    }
)

# By the constraint a node fails first; `%(count)d` nodes do.
FAILING: Mapping[str, str] = MappingProxyType(
    {
        "state": N_("not ready: %(count)d"),
        "site": N_("at another site: %(count)d"),
        "model": N_("without the model: %(count)d"),
        "accelerators": N_("too few free accelerators: %(count)d"),
        "memory": N_("too little free memory: %(count)d"),
        "disk": N_("too little free disk: %(count)d"),
        "cpu": N_("too few free cores: %(count)d"),
        "power": N_("under a breaker with too little power left: %(count)d"),
        "tenant": N_("in use by another tenant, with nothing to keep tenants apart: %(count)d"),
        "container": N_("without a container runtime: %(count)d"),
        "nodes": N_("without enough others of the same model: %(count)d"),
        "topology": N_("without enough others in the same part of the network: %(count)d"),
    }
)

# The scheduler's advice by its lever: for one and for more.
CHANGES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "accelerators": (
            N_("1 accelerator on each node instead of %(asked)s"),
            N_("%(instead)s accelerators on each node instead of %(asked)s"),
        ),
        "nodes": (N_("1 node instead of %(asked)s"), N_("%(instead)s nodes instead of %(asked)s")),
        "memory": (N_("%(instead)s of memory on each node instead of %(asked)s"),) * 2,
        "disk": (N_("%(instead)s of disk on each node instead of %(asked)s"),) * 2,
        "cpu": (N_("%(instead)s cores on each node instead of %(asked)s"),) * 2,
        "max_duration": (N_("a max_duration of %(instead)s instead of %(asked)s"),) * 2,
        "site": (N_("any site instead of %(asked)s"),) * 2,
        "model": (N_("model %(instead)s instead of %(asked)s"),) * 2,
    }
)
_AMOUNTS: Mapping[str, Callable[[Any], str]] = MappingProxyType(
    {
        "memory": shown_mib,
        "disk": shown_mib,
        "cpu": lambda milli: f"{milli / 1000:g}",
        "max_duration": shown_s,
    }
)

# What a run that would fit must not put off.
OBSTACLES: Mapping[str, str] = MappingProxyType(
    {
        "run": N_("It fits now, but would put off a run that was promised its start."),
        "reservation": N_("It fits now, but would still run when a reservation begins."),
        "maintenance": N_("It fits now, but would still run when the maintenance of a node begins."),
        "queue": N_(
            "Its queue, or one above it, holds all that it may; it starts when a run of that queue ends."
        ),
    }
)

STARTS: Mapping[str, str] = MappingProxyType(
    {
        "in_turn": N_("It started in its turn."),
        "backfill": N_("It started before its turn, putting off nobody."),
        "reserved": N_("It started on capacity that was reserved for it."),
        "spot": N_("It started as spot, on what nobody else wanted."),
    }
)


def look_of(noun: str, state: str) -> Look:
    """How a state of a noun is shown; an unknown one by its own code."""
    return LOOKS[noun].get(state) or Look(word=state, shape="?", tone="plain")


def reason(language: Language, code: str | None) -> str:
    return "" if not code else language.say(REASONS.get(code, code))


def event(language: Language, code: str) -> str:
    return language.say(EVENTS.get(code, code))


def field(language: Language, family: str, name: str) -> str:
    return language.say(FIELDS.get(family, {}).get(name, name))


def of(language: Language, phrases: Mapping[str, str], code: str) -> str:
    """A code of one of the tables above, in words; as it is where the table lacks it."""
    return language.say(phrases.get(code, code))


def role(language: Language, code: str) -> str:
    return language.say(ROLES.get(code, code))


def isolation(language: Language, code: str) -> str:
    return language.say(ISOLATIONS.get(code, code))


def wait(language: Language, wait: Mapping[str, Any]) -> str:
    """Why a run waits, in one sentence; empty for a code that nobody knows."""
    if wait["code"] == "held" and wait["behind"]:
        return of(language, OBSTACLES, wait["behind"]["kind"])
    return language.say(WAITS[wait["code"]]) if wait["code"] in WAITS else ""


def failing(language: Language, counts: Mapping[str, int]) -> list[str]:
    """How many nodes fail each constraint, in words."""
    return [
        language.say(FAILING[code], count=count) if code in FAILING else f"{code}: {count}"
        for code, count in counts.items()
    ]


def change(language: Language, change: Mapping[str, Any]) -> str:
    """The scheduler's advice; in its own English where this page does not know the lever."""
    lever, asked, instead = change["lever"], change["asked"], change["instead"]
    if lever not in CHANGES:
        return str(change["sentence"])
    shown = _AMOUNTS.get(lever, str)
    one, many = CHANGES[lever]
    facts = {"asked": shown(asked), "instead": shown(instead)}
    msgid = one if instead == 1 else many
    return language.say(msgid, **{name: said for name, said in facts.items() if f"%({name})s" in msgid})
