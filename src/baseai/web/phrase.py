"""A phrase is how a code is said to people: a state, a reason, a constraint, a change of the demand.

Invariant: every code of the rooms below has its phrase here (a test walks the enums), as an English msgid of the
catalogue; a code nobody knows is shown as it is. Pure: `of` needs only a language.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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
LOOKS: Mapping[str, Mapping[str, Look]] = MappingProxyType(
    {
        "run": RUN_STATES, "node": NODE_STATES, "health": HEALTHS, "lease": LEASE_STATES,
        "accelerator": ACCELERATOR_STATES,
    }
)  # fmt: skip

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "submitted": N_("it was submitted"),
        "granted": N_("leases were granted"),
        "started": N_("its processes started"),
        "finished": N_("it finished"),
        "stopped_by_user": N_("its owner stopped it"),
        "stopped_by_operator": N_("an operator stopped it"),
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
        "held": N_("It fits now, but would put off a run ahead that has booked its start."),
        "never": N_("The nodes that are ready could not take it even when empty."),
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
        "tenant": N_("in use by another tenant, with nothing to keep tenants apart: %(count)d"),
        "container": N_("without a container runtime: %(count)d"),
        "nodes": N_("without enough others of the same model: %(count)d"),
    }
)

# The scheduler's advice in its own English, and the msgid that says the same.
_CHANGES = tuple(
    (re.compile(pattern), msgid)
    for pattern, msgid in (
        (
            r"1 accelerator on each node instead of (?P<asked>.+)",
            N_("1 accelerator on each node instead of %(asked)s"),
        ),
        (
            r"(?P<instead>\d+) accelerators on each node instead of (?P<asked>.+)",
            N_("%(instead)s accelerators on each node instead of %(asked)s"),
        ),
        (r"1 node instead of (?P<asked>.+)", N_("1 node instead of %(asked)s")),
        (r"(?P<instead>\d+) nodes instead of (?P<asked>.+)", N_("%(instead)s nodes instead of %(asked)s")),
        (
            r"(?P<instead>.+) of memory on each node instead of (?P<asked>.+)",
            N_("%(instead)s of memory on each node instead of %(asked)s"),
        ),
        (
            r"(?P<instead>.+) of disk on each node instead of (?P<asked>.+)",
            N_("%(instead)s of disk on each node instead of %(asked)s"),
        ),
        (
            r"(?P<instead>.+) cores on each node instead of (?P<asked>.+)",
            N_("%(instead)s cores on each node instead of %(asked)s"),
        ),
        (
            r"a max_duration of (?P<instead>.+) instead of (?P<asked>.+)",
            N_("a max_duration of %(instead)s instead of %(asked)s"),
        ),
        (r"any site instead of (?P<asked>.+)", N_("any site instead of %(asked)s")),
        (r"model (?P<instead>.+) instead of (?P<asked>.+)", N_("model %(instead)s instead of %(asked)s")),
    )
)


def look_of(noun: str, state: str) -> Look:
    """How a state of a noun is shown; an unknown one by its own code."""
    return LOOKS[noun].get(state) or Look(word=state, shape="?", tone="plain")


def reason(language: Language, code: str | None) -> str:
    return "" if not code else language.say(REASONS.get(code, code))


def event(language: Language, code: str) -> str:
    return language.say(EVENTS.get(code, code))


def role(language: Language, code: str) -> str:
    return language.say(ROLES.get(code, code))


def isolation(language: Language, code: str) -> str:
    return language.say(ISOLATIONS.get(code, code))


def wait(language: Language, code: str) -> str:
    return language.say(WAITS[code]) if code in WAITS else ""


def failing(language: Language, counts: Mapping[str, int]) -> list[str]:
    """How many nodes fail each constraint, in words."""
    return [
        language.say(FAILING[code], count=count) if code in FAILING else f"{code}: {count}"
        for code, count in counts.items()
    ]


def change(language: Language, english: str) -> str:
    """The scheduler's advice in the reader's language; as it came where it has no such form."""
    for pattern, msgid in _CHANGES:
        found = pattern.fullmatch(english)
        if found is not None:
            facts = found.groupdict()
            return language.say(msgid, **facts) if facts else language.say(msgid)
    return english
