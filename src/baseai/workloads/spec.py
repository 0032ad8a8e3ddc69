"""A spec is what a tenant wrote about one run: its kind, what it needs, and how it shall be treated.

Invariant: every key of the file either takes effect or is refused with a sentence; none is silently left aside.
Read by `spec_of`, which finds all errors before it raises; stored as JSON with the run; nobody changes it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal

import yaml

from baseai.ground.quantity import duration_s, memory_mib
from baseai.workloads import burn, service, service_keys, task, train
from baseai.workloads.burn import BurnIn
from baseai.workloads.model import model_source_of
from baseai.workloads.service import Service
from baseai.workloads.service_keys import service_of
from baseai.workloads.sheet import BadSpec, Entries, Sheet, SpecError, Value
from baseai.workloads.task import Task, task_of
from baseai.workloads.train import CheckRecipe, Train, train_of

__all__ = ["BadSpec", "RunSpec", "SpecError", "spec_of"]

NODES_MOST = 4_096
ACCELERATORS_MOST = 1_024  # on one node
OPTIONS_MOST = 64  # ways to satisfy one demand: alternatives times the width of their ranges
DURATION_MOST_S = 366 * 86_400
DEFAULT_PRIORITY = 50
DEFAULT_QUEUE = "default"  # every tenant has one of its own
DEFAULT_DURATION_S = 24 * 3_600
SERVICE_DURATION_S = 30 * 86_400  # of one replica; another takes over when it ends
ATTEMPTS_MOST = 100

KINDS_OFFERED = ("task", "train", "service")
KINDS_LATER = ("batch", "workspace", "edge", "quantum")

COMMON_KEYS = (
    "type",
    "name",
    "nodes",
    "resources",
    "env",
    "files",
    "secrets",
    "queue",
    "priority",
    "max_duration",
    "min_runtime",
    "deadline",
    "spot",
    "reservation",
    "topology",
    "retry",
    "cost_center",
    "data_residency",
    "site",
)
TASK_KEYS = (*COMMON_KEYS, *task.KEYS, "working_dir", "image")
TRAIN_KEYS = (*COMMON_KEYS, *train.KEYS)
SERVICE_KEYS = (
    *(key for key in COMMON_KEYS if key not in ("deadline", "topology")),
    *service_keys.KEYS,
    "working_dir",
)

_LATER = "is not offered by this version; leave it out, it would have no effect"
REFUSED = {
    "schedule": "is not offered by this version; leave it out and submit the run when it shall start",
    "volumes": "is not offered by this version; leave it out and bring data with `files`",
    "gateway": "is not taken; every service stands behind the platform's own gateway",
    "https": "is not taken; put it before the platform's gateway",
    "strip_prefix": "is not taken; the gateway always takes `/s/ID` off a path",
    "ports": _LATER,
    "ide": "belongs to `type: workspace`, which this version does not offer yet; leave it out",
    "user": "is set by the node's operator; leave it out",
    "privileged": "is never granted; leave it out",
    "entrypoint": "is not taken; write what it does as the first of `commands`",
    "shell": "is not taken; start another shell from `commands`",
    "registry_auth": _LATER,
    "python": "is not offered by this version, which starts what the node has; leave it out and name the interpreter"
    " in `commands`",
    "docker": _LATER,
    "nvcc": _LATER,
    "repos": "is not taken; bring the code with `files`",
    "setup": "is not taken; write it as the first of `commands`",
    "run": "is not taken; write it as `commands`",
    "workdir": "is not taken; write `working_dir`, and bring the folder with `files`",
    "num_nodes": "is not taken; write `nodes`",
    "envs": "is not taken; write `env`",
    "file_mounts": "is not taken; write `files`",
    "regions": "is not taken; write `data_residency` or `site`",
    "backends": _LATER,
    "instance_types": "is not taken; write `resources.gpu`",
    "spot_policy": "is not taken; write `spot: true` or leave it out",
    "max_price": _LATER,
    "stop_duration": _LATER,
    "idle_duration": _LATER,
    "utilization_policy": _LATER,
    "startup_order": _LATER,
    "stop_criteria": _LATER,
    "fleets": _LATER,
    "tags": "is not taken; write `cost_center`",
}
REFUSED_RESOURCES = {
    "shm_size": _LATER,
    "accelerators": "is not taken; write `gpu`",
    "cpus": "is not taken; write `cpu`",
    "disk_size": "is not taken; write `disk`",
    "use_spot": "is not taken; write `spot: true` beside `resources`",
    "infra": "is not taken; write `site` beside `resources`",
}

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_PLACE = re.compile(r"^[A-Za-z0-9][-A-Za-z0-9]{0,31}$")
_RANGE = re.compile(r"^(.*?)\.\.(.*)$")
_WITH_UNIT = re.compile(r"^\d+(\.\d+)?\s*[KMGT](i?B?)?$", re.IGNORECASE)
SET_BY_PLATFORM = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NODE_RANK",
    }
)

RetryEvent = Literal["error", "interruption"]
Reach = Literal["leaf", "pod", "site"]
REACHES: tuple[Reach, ...] = ("leaf", "pod", "site")  # of the network, the narrowest first


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorAsk:
    """One alternative of `gpu`: what is asked on each node."""

    text: str  # as written
    name: str | None  # as people say it, `H100`; None for any but a CPU slot
    memory_gib_least: int | None  # of one accelerator
    memory_gib_most: int | None
    count_least: int
    count_most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Host cores on each node; the most that can start now is taken where cores are what is leased."""

    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What is asked on each node. None means nothing in particular."""

    gpu: tuple[AcceleratorAsk, ...]  # alternatives, the preferred first; empty leases CPU slots
    cpu: Cores | None
    memory_mib: int | None
    disk_mib: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMount:
    """A file or folder of the tenant's machine, and where it lies in the run's folder."""

    local: str
    remote: str  # relative, never outside the run's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a run that ended badly starts again. Interruptions are the platform's doing and not counted."""

    on_events: tuple[RetryEvent, ...]
    max_attempts: int  # starts in all that may end in the run's own error
    duration_s: int | None  # since the first start; None for as long as `max_duration` gives


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """By when a run shall be done: an instant, or so long after it was submitted. One of the two."""

    at: str | None  # ISO 8601 with its zone
    after_s: int | None

    def due_s(self, submitted_s: float) -> float:
        """On the clock of seconds since 1970, of a run submitted then."""
        if self.at is not None:
            return datetime.fromisoformat(self.at).timestamp()
        assert self.after_s is not None
        return submitted_s + self.after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Within what of the network the nodes of a gang must stand, or had best stand."""

    required: Reach | None
    preferred: Reach | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """The whole of a spec, with every default in its place."""

    name: str
    work: Task | Train | Service | BurnIn
    nodes: int
    resources: Resources
    env: tuple[tuple[str, str], ...]
    files: tuple[FileMount, ...]
    secrets: tuple[str, ...]  # names; the values never come near a spec
    working_dir: str | None  # in the run's folder
    image: str | None  # asks for a node with a container runtime
    queue: str
    priority: int
    max_duration_s: int
    min_runtime_s: int  # before anything may preempt it
    retry: Retry
    cost_center: str | None
    data_residency: tuple[str, ...]  # sites or country codes
    site: str | None
    deadline: Deadline | None = None
    spot: bool = False  # runs on what nobody else wants now, and gives way to who does
    reservation: str | None = None  # whose held capacity it may use
    topology: Topology | None = None

    @property
    def type(self) -> Literal["task", "train", "service", "burn_in"]:
        if isinstance(self.work, BurnIn):
            return "burn_in"
        if isinstance(self.work, Service):
            return "service"
        return "task" if isinstance(self.work, Task) else "train"

    @property
    def asked_text(self) -> str:
        """What each node is asked for, as people say it: `H100:80GB:8 | A100:8`, `cpu-slot:2`."""
        if isinstance(self.work, BurnIn):
            return f"{self.work.model}:{self.work.accelerators}"
        cores = self.resources.cpu
        slots = f"cpu-slot:{1 if cores is None else cores.most:g}"
        return " | ".join(ask.text for ask in self.resources.gpu) or slots

    def to_json(self) -> dict[str, Any]:
        """What is stored with the run; `from_json` gives the equal spec back."""
        flat = asdict(self)
        flat["work"] = self.work.to_json()
        return {"type": self.type, **flat}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "RunSpec":
        """The spec that `to_json` stored. Raises KeyError or TypeError where it is no such thing."""
        fields = {key: value for key, value in stored.items() if key != "type"}
        resources, retry, work = fields["resources"], fields["retry"], fields["work"]
        kinds: Mapping[str, Callable[[Mapping[str, Any]], Task | Train | Service | BurnIn]] = {
            "task": Task.from_json,
            "train": Train.from_json,
            service.KIND: Service.from_json,
            burn.KIND: BurnIn.from_json,
        }
        fields["work"] = kinds[stored["type"]](work)
        fields["resources"] = Resources(
            gpu=tuple(AcceleratorAsk(**ask) for ask in resources["gpu"]),
            cpu=None if resources["cpu"] is None else Cores(**resources["cpu"]),
            memory_mib=resources["memory_mib"],
            disk_mib=resources["disk_mib"],
        )
        fields["retry"] = Retry(**{**retry, "on_events": tuple(retry["on_events"])})
        if fields.get("deadline") is not None:
            fields["deadline"] = Deadline(**fields["deadline"])
        if fields.get("topology") is not None:
            fields["topology"] = Topology(**fields["topology"])
        fields["env"] = tuple((name, value) for name, value in fields["env"])
        fields["files"] = tuple(FileMount(**mount) for mount in fields["files"])
        fields["secrets"] = tuple(fields["secrets"])
        fields["data_residency"] = tuple(fields["data_residency"])
        # What a later or earlier version stored beside is left aside, so that its runs stay readable.
        known = RunSpec.__dataclass_fields__
        return RunSpec(**{name: value for name, value in fields.items() if name in known})


def burn_in_spec(name: str, work: BurnIn, *, max_duration_s: int) -> RunSpec:
    """The spec of a burn-in: lowest priority, tried again as often as the platform interrupts it."""
    return RunSpec(
        name=name,
        work=work,
        nodes=1,
        resources=Resources(gpu=(), cpu=None, memory_mib=None, disk_mib=None),
        env=(),
        files=(),
        secrets=(),
        working_dir=None,
        image=None,
        queue=DEFAULT_QUEUE,
        priority=0,
        max_duration_s=max_duration_s,
        min_runtime_s=0,
        retry=Retry(on_events=("interruption",), max_attempts=1, duration_s=None),
        cost_center=None,
        data_residency=(),
        site=None,
    )


def spec_of(text: str, file: str, check_recipe: CheckRecipe) -> RunSpec:
    """The spec in `text`; `file` names it in errors and, without `name`, the run.

    check_recipe: see `train.CheckRecipe`; only called for a `train`.
    Raises BadSpec with every error found, each with line, column, key and fix.
    """
    sheet = Sheet(text, file)
    top = sheet.top
    kind = _kind(top)
    top.only(_keys_of(kind), _refused(kind))
    env = _env(top)
    resources = _resources(top)
    name = _name(top, file)
    work: Task | Train | Service | None = None
    if kind == "task":
        work = task_of(top)
    elif kind == "train":
        work = train_of(top, check_recipe)
        least = _least_accelerators(resources)
        if work.workers is not None and least is not None and work.workers > least:
            top.wrong(
                "workers",
                f"{work.workers} workers need an accelerator each, and a node may have {least}",
                f"write `workers: {least}`, leave it out, or ask for more accelerators",
            )
    elif kind == "service":
        on_accelerators = any(ask.name != "cpu-slot" for ask in resources.gpu)
        work = service_of(top, name=name, on_accelerators=on_accelerators)
        for variable in service_keys.GIVEN & {name for name, _ in env}:
            fix = "leave it out; a command that listens elsewhere says so in `port`"
            top.wrong("env", f"{variable} is given to each replica", fix)
    usual_s = SERVICE_DURATION_S if kind == "service" else DEFAULT_DURATION_S
    max_duration_s = top.parsed("max_duration", _duration) or usual_s
    min_runtime_s = top.parsed("min_runtime", _duration) or 0
    if min_runtime_s > max_duration_s:
        top.wrong("min_runtime", "is longer than `max_duration`", "make it shorter")
    queue = top.parsed("queue", _label)
    deadline = top.parsed("deadline", _deadline)
    spot = _yes_or_no(top, "spot")
    reservation = top.parsed("reservation", _label)
    topology = _topology(top)
    priority = top.whole("priority", 0, 100)
    nodes = top.whole("nodes", 1, NODES_MOST)
    if kind == "service" and nodes is not None and nodes > 1:
        fix = "write `nodes: 1`, and `replicas` for more of them"
        top.wrong("nodes", "a replica stands on one node in this version", fix)
    files = _files(top)
    secrets = _secrets(top, dict(env))
    working_dir = top.parsed("working_dir", _inside)
    image = _image(top) if kind == "task" else None
    if isinstance(work, Service) and work.model is not None:
        _brought(top, work.model, working_dir, files)
    retry = _retry(top, kind)
    cost_center = top.parsed("cost_center", _short)
    residency = _residency(top)
    site = top.parsed("site", _place)
    sheet.raise_errors()
    assert work is not None
    return RunSpec(
        name=name,
        work=work,
        nodes=nodes or 1,
        resources=resources,
        env=env,
        files=files,
        secrets=secrets,
        working_dir=working_dir,
        image=image,
        queue=queue or DEFAULT_QUEUE,
        priority=DEFAULT_PRIORITY if priority is None else priority,
        max_duration_s=max_duration_s,
        min_runtime_s=min_runtime_s,
        retry=retry,
        cost_center=cost_center,
        data_residency=residency,
        site=site,
        deadline=deadline,
        spot=spot,
        reservation=reservation,
        topology=topology,
    )


def _kind(top: Entries) -> str | None:
    kind = top.text("type")
    if kind in KINDS_OFFERED:
        return kind
    fix = f"write {' or '.join(f'`type: {offered}`' for offered in KINDS_OFFERED)}"
    if "type" not in top:
        top.wrong("type", "a spec needs a type", fix)
    elif kind in KINDS_LATER:
        top.wrong("type", f"`{kind}` is not yet offered by this version", fix)
    elif kind is not None:
        top.wrong("type", f"there is no type `{kind}`", fix)
    return None


def _keys_of(kind: str | None) -> tuple[str, ...]:
    if kind == "task":
        return TASK_KEYS
    if kind == "train":
        return TRAIN_KEYS
    if kind == "service":
        return SERVICE_KEYS
    return tuple(dict.fromkeys((*TASK_KEYS, *TRAIN_KEYS, *SERVICE_KEYS)))


def _refused(kind: str | None) -> dict[str, str]:
    refused = dict(REFUSED)
    if kind in ("task", "train"):
        for key in service_keys.KEYS:
            refused[key] = "belongs to `type: service`; leave it out, or write `type: service`"
    if kind in ("task", "service"):
        for key in train.KEYS:
            refused[key] = "belongs to `type: train`; leave it out, or write `type: train`"
    if kind == "service":
        refused["deadline"] = "has no meaning for a service, which goes on; leave it out"
        refused["topology"] = (
            "has no meaning for a service, whose replicas stand on one node each; leave it out"
        )
        refused["image"] = _LATER
    if kind == "train":
        for key in (*task.KEYS, "working_dir", "image"):
            refused[key] = "belongs to `type: task`; leave it out: a recipe brings its own program"
    known = _keys_of(kind)
    return {key: sentence for key, sentence in refused.items() if key not in known}


def _name(top: Entries, file: str) -> str:
    if "name" in top:
        return top.parsed("name", _label) or ""
    stem = PurePosixPath(file.replace("\\", "/")).name.split(".")[0]
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:63].strip("-")
    if not name:
        top.wrong("name", f"none is given, and `{file}` gives none", "write `name: my-run`")
    return name


def _label(written: str | int | float) -> str:
    if not _LABEL.match(str(written)):
        raise ValueError(f"`{written}` is not a name; use 1 to 63 of a-z, 0-9 and -, no - at the ends")
    return str(written)


def _place(written: str | int | float) -> str:
    if not _PLACE.match(str(written)):
        raise ValueError(f"`{written}` is not a site; write its name like SP4")
    return str(written)


def _short(written: str | int | float) -> str:
    if not 1 <= len(str(written)) <= 64 or not str(written).isprintable():
        raise ValueError("is empty or too long; use 1 to 64 printable characters")
    return str(written)


def _duration(written: str | int | float) -> int:
    seconds = duration_s(written)
    if not 1 <= seconds <= DURATION_MOST_S:
        raise ValueError(f"`{written}` is not between a second and a year; write it like 30m, 12h or 2d")
    return seconds


def _deadline(written: str | int | float) -> Deadline:
    try:
        return Deadline(at=None, after_s=_duration(written))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(str(written))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(f"`{written}` is no duration and no instant; write 12h or 2026-12-01T18:00-03:00")
    return Deadline(at=at.isoformat(), after_s=None)


def _topology(top: Entries) -> Topology | None:
    node = top.mapping("topology")
    if node is None:
        return None
    node.only(("required", "preferred"), {})
    found: dict[str, Reach | None] = {}
    for key in ("required", "preferred"):
        found[key] = node.parsed(key, _reach)
    required, preferred = found["required"], found["preferred"]
    if required and preferred and REACHES.index(preferred) >= REACHES.index(required):
        node.wrong("preferred", f"`{preferred}` is no narrower than `required: {required}`", "leave it out")
    return Topology(required=required, preferred=preferred)


def _yes_or_no(top: Entries, key: str) -> bool:
    if key not in top:
        return False
    found = top.truth(key)
    if found is None:
        top.wrong(key, "is neither true nor false", f"write `{key}: true`, or leave it out")
    return bool(found)


def _reach(written: str | int | float) -> Reach:
    for reach in REACHES:
        if written == reach:
            return reach
    raise ValueError(
        f"`{written}` is no reach of the network; write {', '.join(REACHES[:-1])} or {REACHES[-1]}"
    )


def _inside(written: str | int | float) -> str:
    path = PurePosixPath(str(written))
    if path.is_absolute() or ".." in path.parts or str(written).startswith("~") or "\0" in str(written):
        raise ValueError(f"`{written}` lies outside the run's folder; write a path relative to it")
    return str(path)


def _image(top: Entries) -> str | None:
    image = top.text("image")
    if image is not None and not re.fullmatch(r"[\w.\-/:@]{1,255}", image):
        top.wrong("image", f"`{image}` is not an image", "write it like pytorch/pytorch:2.9.0")
    return image


def _env(top: Entries) -> tuple[tuple[str, str], ...]:
    node = top.values.get("env")
    if node is None:
        return ()
    found: dict[str, str] = {}
    pairs: list[tuple[str, str | None, Value]] = []
    if isinstance(node, yaml.MappingNode):
        own = top.mapping("env")
        assert own is not None
        pairs = [(name, own.text(name), own.values[name]) for name in own]
    else:
        for line, item in top.texts("env") or ():
            left, equals, right = line.partition("=")
            if not equals:
                top.sheet.wrong(
                    item, "env", f"`{line}` gives no value", f"write `{left}=…`, or name it in `secrets`"
                )
            else:
                pairs.append((left, right, item))
    for variable, value, item in pairs:
        if not _VARIABLE.match(variable):
            top.sheet.wrong(item, f"env.{variable}", "is not a variable's name", "use letters, digits and _")
        elif variable in SET_BY_PLATFORM or variable.startswith("BASEAI_"):
            top.sheet.wrong(item, f"env.{variable}", "is set by the platform", "leave it out")
        elif variable in found:
            top.sheet.wrong(item, f"env.{variable}", "stands twice", "keep one of them")
        elif value is not None:
            found[variable] = value
    return tuple(found.items())


def _secrets(top: Entries, env: Mapping[str, str]) -> tuple[str, ...]:
    names: list[str] = []
    for name, item in top.texts("secrets") or ():
        if not _VARIABLE.match(name):
            fix = "write only its name here; `baseai secret set` takes the value"
            top.sheet.wrong(item, "secrets", "is not the name of a secret", fix)
        elif name in env or name in names or name in SET_BY_PLATFORM:
            top.sheet.wrong(item, f"secrets.{name}", "is given already", "keep one of them")
        else:
            names.append(name)
    return tuple(names)


def _files(top: Entries) -> tuple[FileMount, ...]:
    mounts: list[FileMount] = []
    for written, item in top.texts("files") or ():
        local, colon, remote = written.partition(":")
        try:
            if not local or (colon and not remote):
                raise ValueError(f"`{written}` names no file; write `local` or `local:remote`")
            if not colon and (local.startswith(("/", "~")) or ".." in PurePosixPath(local).parts):
                raise ValueError(
                    f"`{written}` does not say where it goes; write `{local}:{PurePosixPath(local).name}`"
                )
            mount = FileMount(local=local, remote=_inside(remote if colon else local))
        except ValueError as error:
            message, _, fix = str(error).partition("; ")
            top.sheet.wrong(item, "files", message, fix)
            continue
        if any(mount.remote == other.remote for other in mounts):
            top.sheet.wrong(
                item, "files", f"two files go to `{mount.remote}`", "write `local:remote` with another remote"
            )
        mounts.append(mount)
    return tuple(mounts)


def _brought(top: Entries, model: str, working_dir: str | None, files: tuple[FileMount, ...]) -> None:
    """Note a model in the run's folder that nothing brings there."""
    source = model_source_of(model)
    if source.kind not in ("path", "python") or source.place.startswith("/"):
        return
    path = PurePosixPath(working_dir or ".") / source.place
    places = [PurePosixPath(mount.remote) for mount in files]
    if not any(place == path or place in path.parents or path in place.parents for place in places):
        beside = "" if working_dir is None else f":{path}"
        fix = f"bring it, `files: [{source.place}{beside}]`, or write its path on the node from /"
        top.wrong("model", f"`{path}` is not among `files`", fix)


def _residency(top: Entries) -> tuple[str, ...]:
    places: list[str] = []
    for written, item in top.texts("data_residency", one=True) or ():
        if _PLACE.match(written):
            places.append(written.upper() if len(written) == 2 else written)
        else:
            top.sheet.wrong(
                item, "data_residency", f"`{written}` is no place", "write sites or countries, `[BR]`"
            )
    if "data_residency" in top and not places:
        top.wrong("data_residency", "permits no place", "write sites or countries, `[BR]`")
    return tuple(dict.fromkeys(places))


def _retry(top: Entries, kind: str | None) -> Retry:
    usual = Retry(on_events=("interruption",), max_attempts=1, duration_s=None)
    if kind in ("train", "service"):
        usual = Retry(on_events=("error", "interruption"), max_attempts=3, duration_s=None)
    if "retry" not in top:
        return usual
    decided = top.truth("retry")
    if decided is not None:
        return (
            Retry(on_events=("error", "interruption"), max_attempts=3, duration_s=None)
            if decided
            else Retry(on_events=(), max_attempts=1, duration_s=None)
        )
    own = top.mapping("retry")
    if own is None:
        return usual
    own.only(("on_events", "max_attempts", "duration"))
    events: list[RetryEvent] = []
    for written, item in own.texts("on_events") or ():
        if written == "error" or written == "interruption":
            events.append("error" if written == "error" else "interruption")
        else:
            fix = "write `error`, `interruption` or both"
            own.sheet.wrong(item, own.at("on_events"), f"there is no event `{written}`", fix)
    chosen = tuple(dict.fromkeys(events)) if "on_events" in own else ("error", "interruption")
    usual_attempts = 3 if "error" in chosen else 1
    return Retry(
        on_events=chosen,
        max_attempts=own.whole("max_attempts", 1, ATTEMPTS_MOST) or usual_attempts,
        duration_s=own.parsed("duration", _duration),
    )


def _resources(top: Entries) -> Resources:
    own = top.mapping("resources")
    if own is None:
        return Resources(gpu=(), cpu=None, memory_mib=None, disk_mib=None)
    own.only(("gpu", "cpu", "memory", "disk"), REFUSED_RESOURCES)
    gpu = _gpu(own)
    cpu = own.parsed("cpu", _cores)
    if cpu is not None and any(ask.name == "cpu-slot" for ask in gpu):
        own.wrong("cpu", "CPU slots are the cores", "ask for them in `cpu` or in `gpu`, not in both")
    elif cpu is not None and not gpu and cpu.most - cpu.least >= OPTIONS_MOST:
        own.wrong("cpu", "is too wide a range", f"keep it below {OPTIONS_MOST} cores wide")
    return Resources(
        gpu=gpu,
        cpu=cpu,
        memory_mib=own.parsed("memory", _at_least_mib),
        disk_mib=own.parsed("disk", _at_least_mib),
    )


def _least_accelerators(resources: Resources) -> int | None:
    if resources.gpu:
        return min(ask.count_least for ask in resources.gpu)
    return 1 if resources.cpu is None else -int(-resources.cpu.least // 1)


def _cores(written: str | int | float) -> Cores:
    fix = "write it like 4, 0.5 or 2..8"
    least, most = _ends(str(written), fix)
    try:
        cores = Cores(least=float(least), most=float(most))
    except ValueError:
        raise ValueError(f"`{written}` is not a number of cores; {fix}") from None
    if not 0 < cores.least <= cores.most <= ACCELERATORS_MOST:
        raise ValueError(f"`{written}` is not a number of cores from above 0 to {ACCELERATORS_MOST}; {fix}")
    return cores


def _at_least_mib(written: str | int | float) -> int:
    text = str(written)
    bounds = _RANGE.match(text)
    if bounds and bounds[2].strip():
        least = bounds[1].strip() or "16GB"
        raise ValueError(f"`{written}` has an upper bound, which has no meaning here; write `{least}`")
    mib = memory_mib(bounds[1].strip() if bounds else written)
    if mib < 1:
        raise ValueError(f"`{written}` is nothing; write it like 16GB")
    return mib


def _ends(text: str, fix: str) -> tuple[str, str]:
    bounds = _RANGE.match(text)
    if not bounds:
        return text.strip(), text.strip()
    least, most = bounds[1].strip(), bounds[2].strip()
    if not least or not most:
        raise ValueError(f"`{text}` is open at one end; {fix}")
    return least, most


def _gpu(own: Entries) -> tuple[AcceleratorAsk, ...]:
    node = own.values.get("gpu")
    if node is None:
        return ()
    if isinstance(node, yaml.MappingNode):
        asks = [_gpu_mapping(own)]
    else:
        asks = []
        for written, item in own.texts("gpu", one=True) or ():
            try:
                asks.append(accelerator_ask(written))
            except ValueError as error:
                message, _, fix = str(error).partition("; ")
                own.sheet.wrong(item, own.at("gpu"), message, fix)
        if isinstance(node, yaml.SequenceNode) and not node.value:
            own.wrong("gpu", "names no accelerator", "leave it out to run on CPU slots")
    found = tuple(ask for ask in asks if ask is not None)
    if sum(ask.count_most - ask.count_least + 1 for ask in found) > OPTIONS_MOST:
        own.wrong("gpu", f"allows more than {OPTIONS_MOST} choices", "narrow the ranges")
    return found


def _gpu_mapping(own: Entries) -> AcceleratorAsk | None:
    entries = own.mapping("gpu")
    assert entries is not None
    entries.only(("name", "memory", "count"), {"vendor": "is not taken; write the accelerator's `name`"})
    parts = [entries.text(key) for key in ("name", "memory", "count") if key in entries]
    if None in parts:
        return None
    if entries.text("memory") and re.fullmatch(r"[\d.]+", entries.text("memory") or ""):
        entries.wrong("memory", "has no unit", f"write `{entries.text('memory')}GB`")
        return None
    if not parts:
        own.wrong("gpu", "asks for nothing", "write a name, a memory or a count, `gpu: H100:80GB:8`")
        return None
    try:
        return accelerator_ask(":".join(part for part in parts if part is not None))
    except ValueError as error:
        message, _, fix = str(error).partition("; ")
        own.wrong("gpu", message, fix)
        return None


def accelerator_ask(written: str) -> AcceleratorAsk:
    """`H100:80GB:8` in any order, each part optional. Raises ValueError as `what is wrong; the fix`."""
    fix = "write it like H100:80GB:8, 24GB..:2 or cpu-slot:2"
    name: str | None = None
    memory: tuple[int | None, int | None] | None = None
    count: tuple[int, int] | None = None
    for part in (part.strip() for part in written.split(":")):
        least, most = (part, part) if ".." not in part else part.split("..", 1)
        if re.fullmatch(r"\d*", least) and re.fullmatch(r"\d*", most) and (least or most) and count is None:
            if not least or not most:
                raise ValueError(
                    f"`{part}` is open at one end, and each accelerator is paid; write both, `2..8`"
                )
            count = (int(least), int(most))
        elif (
            all(not end or _WITH_UNIT.match(end) for end in (least, most))
            and (least or most)
            and memory is None
        ):
            memory = (_gib(least) if least else None, _gib(most) if most else None)
        elif re.fullmatch(r"[A-Za-z][\w .\-]*", part) and ".." not in part and name is None:
            name = part
        else:
            raise ValueError(f"`{written}` is not understood at `{part}`; {fix}")
    count = count or (1, 1)
    if not 1 <= count[0] <= count[1] <= ACCELERATORS_MOST:
        raise ValueError(f"`{written}` asks for no number from 1 to {ACCELERATORS_MOST}; {fix}")
    if memory is not None and None not in memory and (memory[0] or 0) > (memory[1] or 0):
        raise ValueError(f"`{written}` has its memory range the wrong way round; {fix}")
    if name is not None and name.lower() == "cpu-slot":
        name = "cpu-slot"
        if memory is not None:
            raise ValueError("a CPU slot has no memory of its own; write `memory` beside `gpu`")
    return AcceleratorAsk(
        text=written,
        name=name,
        memory_gib_least=None if memory is None else memory[0],
        memory_gib_most=None if memory is None else memory[1],
        count_least=count[0],
        count_most=count[1],
    )


def _gib(written: str) -> int:
    return -(-memory_mib(written) // 1024)
