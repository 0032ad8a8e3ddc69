"""The shapes that cross the wire between server, command line and agents.

Invariant: agent schemas only grow, so that server and agent of adjacent minor versions work together
(`PROTOCOL` travels with each report). Unknown fields are ignored on the wire, never an error.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

PROTOCOL = 1
LOG_CHUNK_BYTES = 256 * 1024


class Wire(BaseModel):
    """Base of all shapes: extra fields are dropped, so that a newer peer can say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# ---- agent: joining -------------------------------------------------------------------------------------------


class Device(Wire):
    """One accelerator as the node's agent sees it. A CPU slot is one core."""

    serial: str  # unique over the fleet; a slot's is derived from the node's own identity
    model: str  # a model of the catalogue
    index: int  # the number the driver, or the kernel for a core, knows it by
    memory_mib: int = 0
    uuid: str | None = None  # by which its driver and exporters name it
    pci: str | None = None  # its bus address, as 0000:9b:00.0


class NodeFacts(Wire):
    """What a node says of itself when it joins and whenever its agent starts."""

    name: str
    address: str  # where other nodes of the site reach this one
    site: str = "local"
    isolation: Literal["none", "user", "container"] = "none"
    container_runtime: str | None = None
    cores: int
    memory_mib: int
    disk_mib: int
    devices: list[Device]
    boot_id: str
    version: str = ""
    protocol: int = PROTOCOL
    repair_steps: list[str] = Field(
        default_factory=list
    )  # what its agent may carry out: fabric, reset, reboot
    rack: str | None = None  # where it hangs, as far as it was told
    leaf: str | None = None
    pod: str | None = None


class Join(Wire):
    token: str
    facts: NodeFacts


class Joined(Wire):
    node_id: str
    node_key: str  # shown once; reads this node's desired state and writes its observations, nothing else


# ---- agent: desired state -------------------------------------------------------------------------------------


class FileRef(Wire):
    """A file of the run, by digest, to lie at `path` below the run's working folder."""

    path: str
    digest: str  # sha256 hex
    bytes: int
    mode: int = 0o644


class LeasedDevice(Wire):
    accelerator_id: str
    model: str
    index: int


class Launch(Wire):
    """One lease as its node must carry it out: what to start, on which devices, until when."""

    lease_id: str
    run_id: str
    run_name: str
    tenant_id: str
    attempt_no: int  # the fence: it rises with every attempt of a run
    kind: Literal["task", "train", "service", "burn_in"]
    commands: list[str] = Field(default_factory=list)
    train: dict[str, Any] | None = (
        None  # recipe, config, parallel, checkpoint_every, max_restarts, seed, workers
    )
    burn_in: dict[str, Any] | None = None  # model, accelerators, profile of a test of this node
    # Of a replica: terms, service_id, version_no, model_path, and the token that its gateway shows.
    service: dict[str, Any] | None = Field(default=None, repr=False)
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(
        default_factory=dict
    )  # handed to the process, never written to disk or log
    files: list[FileRef] = Field(default_factory=list)
    working_dir: str | None = None
    image: str | None = None
    devices: list[LeasedDevice]
    memory_mib: int | None = None
    node_rank: int
    nodes: int
    addresses: list[str]  # of all nodes of the attempt, by rank
    rendezvous_port: int
    checkpoint_folder: str
    output_folder: str
    run_started_at: datetime | None = None
    ends_at: datetime  # by the database's clock
    ends_in_s: float  # the same, as a distance from the moment of the answer: free of clock skew
    stop: bool = False  # end it now: SIGTERM, then SIGKILL after `stop_grace_s`
    stop_reason: str | None = None
    stop_grace_s: float = 20.0


class RepairOrder(Wire):
    """One step that the agent shall carry out, once; what came of it is told as a witness of the kind `repair`."""

    repair_id: str
    step: str  # fabric, reset or reboot
    devices: list[Device] = Field(default_factory=list)


class Desired(Wire):
    """All that a node shall run. What is not listed shall not run."""

    version: int
    node_id: str
    node_state: str
    launches: list[Launch]
    released: list[str] = Field(
        default_factory=list
    )  # leases that are over for the server: their folders may be tidied
    repairs: list[RepairOrder] = Field(default_factory=list)


# ---- agent: observed state ------------------------------------------------------------------------------------


class Observation(Wire):
    """One thing the agent saw. `event_id` is made when it is seen, so a repeat is harmless."""

    event_id: str
    at: datetime  # by the node's clock; the server corrects it with `sent_at`
    kind: Literal["started", "exited", "not_started", "progress", "log_truncated"]
    lease_id: str
    attempt_no: int
    pid: int | None = None
    exit_code: int | None = None  # negative: ended by that signal
    reason: str | None = None  # a value of workloads.reason.Reason
    sentence: str | None = None  # what a person should read
    payload: dict[str, Any] = Field(default_factory=dict)  # progress: one line of progress.jsonl


class Alive(Wire):
    """The processes of a lease exist at the moment of the report."""

    lease_id: str
    attempt_no: int
    pid: int
    memory_mib: int | None = None
    cpu_s: float | None = None


class Report(Wire):
    protocol: int = PROTOCOL
    boot_id: str
    sent_at: datetime  # the node's clock as the report leaves
    seen_version: int
    alive: list[Alive] = Field(default_factory=list)  # all of them, always: what is missing is gone
    observations: list[Observation] = Field(default_factory=list)
    gone: list[str] = Field(
        default_factory=list
    )  # leases of which no process exists here (never started, ended, or lost)


class Reported(Wire):
    accepted: list[str]  # event ids now in the truth (new or repeated): the agent may forget them
    refused: dict[str, str] = Field(default_factory=dict)  # event id → why it will never be taken
    desired_version: int


class LogOffset(Wire):
    next_offset: int  # bytes the server has of this log; send from there


# ---- agent: what it measures ----------------------------------------------------------------------------------


class Samples(Wire):
    """Rows of one family as columns: a telemetry batch on the wire."""

    batch_id: str  # made when the batch was closed, so a repeat is harmless
    family: str  # accelerator, node or port
    boot_id: str  # of the node as the rows were read: counters begin again with it
    keys: list[str]  # (rows,) an accelerator's serial, a node's id, node/device/port
    ts_ms: list[int]  # (rows,) by the node's clock; the server corrects them with `sent_at`
    values: dict[str, list[float | None]]  # field → (rows,); a field that is missing is absent
    # Field → (rows,) of telemetry.sample.code_of; where missing: measured, None is absent.
    codes: dict[str, list[int]] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)  # field → where its values come from


class Witness(Wire):
    """One event about a device or node: a Xid, a kernel line, a word of the management controller."""

    event_id: str  # made when it was seen, so a repeat is harmless
    at: AwareDatetime  # by the node's clock
    kind: str  # xid, sxid, afid, kernel, redfish, device_lost, ...
    key: str | None = None  # serial of the accelerator it is about; None: the node
    code: int | None = None
    severity: Literal["info", "warning", "critical"] = "info"
    sentence: str = ""
    payload: dict[str, Any] = Field(default_factory=dict)


class CollectorView(Wire):
    """How one collector of a node fares."""

    name: str
    state: Literal["ok", "failing", "off"]
    interval_s: float
    last_ok_at: AwareDatetime | None = None
    took_ms: float | None = None
    failures: int = 0  # in a row
    sentence: str | None = None
    troubles: list[str] = Field(default_factory=list)  # which device and field, newest first, bounded


class Measured(Wire):
    """What a node sends of its measurements: batches, events, and how its collectors fare."""

    protocol: int = PROTOCOL
    sent_at: AwareDatetime  # the node's clock as it leaves
    batches: list[Samples] = Field(default_factory=list)
    witnesses: list[Witness] = Field(default_factory=list)
    collectors: list[CollectorView] = Field(default_factory=list)


class Kept(Wire):
    """What of it is safe: the node may forget it."""

    accepted: list[str]  # batch and event ids, new or repeated
    refused: dict[str, str] = Field(default_factory=dict)  # id → why it will never be taken


class Reckoning(Wire):
    """Whether the uses of all hours that were closed within 7 days add up to the accelerators' own counters."""

    hours: int  # hours of accelerators
    checked: int  # of them those that the metric store's own sums tell of as well, which are made another way
    astray: int  # uses and counter differ: a bug
    apart: int  # the store's sum contradicts the samples: a damaged store
    serials: list[str] = Field(default_factory=list)  # of the accelerators that are astray or apart


class UseView(Wire):
    """What one subject (a run, tenant, round, node or accelerator) had of accelerators over a time."""

    subject: str  # its id; "" for time that nobody held
    label: str
    from_at: datetime
    until_at: datetime  # up to where it is counted
    accelerator_s: float  # over all its accelerators
    held_s: float = 0.0  # of it, how much customers had: the platform's own tests are nobody's use
    seen_s: float  # how much of that samples cover: figures below speak of it alone
    util_pct: float | None = None  # mean over what is seen; None: nothing said it
    mem_used_max_b: float | None = None  # the most on one accelerator
    energy_wh: float | None = None
    energy_origin: Literal["measured", "estimated", "simulated"] | None = None  # the weakest of its parts
    throttled_s: float | None = None  # slowed down for a harmful reason
    methods: list[str] = Field(default_factory=list)
    open: bool = False  # holds time of hours that are not closed yet: these figures may still move
    missing: str | None = None  # what could not be asked, and so is not in it


# ---- runs -----------------------------------------------------------------------------------------------------


class Submit(Wire):
    spec: str  # the YAML text
    file: str = "spec.yaml"  # its name, for messages
    files: list[FileRef] = Field(default_factory=list)
    project: str | None = None


class Why(Wire):
    """The reason somebody gives for a deed; it stands in the event."""

    reason: str | None = Field(default=None, max_length=1000)


class SpecProblem(Wire):
    file: str
    line: int
    column: int
    key: str
    message: str
    fix: str


class ChangeView(Wire):
    """One change of what was asked for with which the run would start now."""

    lever: str  # a value of scheduling.plan.Lever
    asked: int | str
    instead: int | str
    sentence: str


class StartEstimateView(Wire):
    """When a waiting run will probably start: an interval that is meant to hold four times of five."""

    asked_at: datetime
    earliest_at: datetime
    likely_at: datetime
    latest_at: datetime
    held_ratio: float | None = None  # of those before it whose outcome is known, for the same models
    outcomes: int = 0  # how many those are
    sentence: str


class BehindView(Wire):
    """What a run that would fit must not put off."""

    kind: str  # a value of scheduling.plan.Obstacle
    name: str | None = None  # None: another tenant's


class OwnerAheadView(Wire):
    tenant_id: str
    tenant: str
    runs: int


class WaitView(Wire):
    """Why a run waits: position, nodes failing each constraint, cheapest change, when."""

    position: int
    ahead: int
    sentence: str
    code: str = ""
    behind: BehindView | None = None
    failing: dict[str, int] = Field(default_factory=dict)  # nodes by the constraint they fail first
    fitting: int | None = None  # nodes that could take one of its processes now
    needed: int | None = None
    change: ChangeView | None = None
    earliest_at: datetime | None = None  # by the ends of the leases that stand
    latest_at: datetime | None = None  # sure while no node is lost
    owners_ahead: list[OwnerAheadView] = Field(default_factory=list)  # for operators; the most first
    own_ahead: int | None = None  # for tenants
    others_ahead: int | None = None  # for tenants
    estimate: StartEstimateView | None = None


class WhyView(Wire):
    """Why an attempt started then and there."""

    kind: str  # a value of scheduling.plan.StartKind
    policy: str
    sentence: str
    fitting: int  # nodes that could have taken one of its processes
    strands_milli: float | None = None  # thousandths of accelerators more that will probably stay unused
    next_best: str | None = None  # the node where the least would have been stranded otherwise; for operators
    next_best_strands_milli: float | None = None
    leaves: int | None = None  # of the network that it is spread over
    leaves_fewest: int | None = None


class LeaseView(Wire):
    lease_id: str
    attempt_no: int
    node_id: str
    node: str
    state: str
    accelerators: list[str]  # serials
    model: str
    granted_at: datetime
    ends_at: datetime
    observed_from: datetime | None = None
    observed_until: datetime | None = None
    released_at: datetime | None = None


class CostView(Wire):
    """Hours, revenue, cost and contribution of one thing (a run, a node, an accelerator, a tenant)."""

    subject: str
    label: str
    accelerator_hours: Decimal
    revenue: Decimal
    cost: Decimal | None  # what it costs us, and what remains, is not a customer's to see
    contribution: Decimal | None
    currency: str = "USD"
    accruing: bool = (
        False  # True while an hour or a lease is still open: these figures are estimates until posted
    )
    basis: str = ""  # what the cost rests on


class RunView(Wire):
    run_id: str
    name: str
    tenant: str
    project: str
    kind: str
    state: str
    reason: str | None = None
    sentence: str | None = None
    priority: int
    gpu: str  # what it asked for, in words
    nodes: int
    attempt_no: int = 0
    restarts: int = 0
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    progress: dict[str, Any] = Field(default_factory=dict)  # latest step, loss, tokens_per_s, ...
    result: dict[str, Any] = Field(default_factory=dict)
    wait: WaitView | None = None
    why: WhyView | None = None  # of its latest attempt
    simulated: bool = False
    service_id: str | None = None  # of a replica: whose, and of which version
    service: str | None = None
    version_no: int | None = None


class AccuracyView(Wire):
    """How good estimates of starts were, over the latest of them, for those who asked for the same models."""

    models: list[str]  # empty: any
    simulated: bool = False
    outcomes: int
    held_ratio: float
    median_error_s: float | None = None  # of the likely start; None while none of them has started
    from_at: datetime


class RoomView(Wire):
    """What there is of one model, and what of it is free on nodes that are ready and speak."""

    model: str
    total: int
    free: int


class QueueView(Wire):
    """Who waits, in order, a page of it, and how good the estimates are that they are told."""

    items: list[RunView]
    next: str | None = None
    waiting: int  # of those the asker may see
    accuracy: list[AccuracyView]
    models: list[RoomView]


class EventView(Wire):
    at: datetime
    subject: str
    event: str
    from_state: str | None = None
    to_state: str | None = None
    reason: str | None = None
    actor: str
    sentence: str | None = None


class CheckpointView(Wire):
    step: int
    attempt_no: int
    bytes: int
    save_s: float
    stall_ms: float
    path: str
    committed_at: datetime


class PreemptionView(Wire):
    """One time that a run made room for another, and what that took of its work."""

    attempt_no: int
    asked_at: datetime
    stopped_at: datetime | None = None  # None while it saves
    for_kind: str = "run"  # or "reservation"
    for_run: str | None = None  # that started instead; None where the asker may not know it
    saved_step: int | None = None  # of the checkpoint from which it goes on; None where it starts anew
    lost_accelerator_s: float | None = None  # of work since that checkpoint, or since its start
    resumed_step: int | None = None  # the first that its next attempt reported


class PointView(Wire):
    """One point of a run's curve."""

    step: int
    at: datetime
    loss: float | None = None
    tokens_per_s: float | None = None
    step_ms: float | None = None
    sync_ratio: float | None = None
    goodput_ratio: float | None = None


class RunDetail(Wire):
    run: RunView
    leases: list[LeaseView]
    events: list[EventView]
    checkpoints: list[CheckpointView]
    preemptions: list[PreemptionView] = Field(default_factory=list)
    money: CostView
    spec: dict[str, Any] = Field(default_factory=dict)


# ---- services -------------------------------------------------------------------------------------------------


class ServiceView(Wire):
    """One service, with what it was asked in the last minute."""

    service_id: str
    name: str
    tenant: str
    project: str
    model_name: str  # what clients call it
    model: str | None = None  # as the spec has it
    engine: str
    protocol: str
    license: str | None = None
    gpu: str  # what each replica asks for, in words
    nodes: int = 1
    state: str  # idle, starting, serving, failing, stopped
    sentence: str | None = None
    version_no: int  # the current one
    candidate_no: int | None = None  # the version that is being rolled out
    candidate_share: float = 0.0  # of requests, that it gets
    step_at: datetime | None = None  # since when
    wanted: int  # replicas
    wanted_why: str | None = None
    replicas: int  # that are there, ready or not
    ready: int
    least: int
    most: int
    concurrency: int  # requests that one replica is given at once
    p99_ms: float | None = None  # the SLO
    auth: bool = True
    cached: bool = False
    panic_until: datetime | None = None
    requests_per_s: float = 0.0
    error_ratio: float | None = None  # of requests; None while nothing was asked
    made_by: str
    made_at: datetime
    stopped_at: datetime | None = None
    url: str | None = None  # at the gateway, outright; None where no gateway runs


class ServiceApplied(Wire):
    """What a spec of a service came to."""

    service: ServiceView
    version_no: int
    made: bool  # the service, just now
    rolling: bool  # this version takes over from another, step by step; neither: nothing changed
    example: str | None = None  # a request to it, as a command


class ServiceVersionView(Wire):
    version_no: int
    state: str  # candidate, current, retired, rolled_back
    share: float  # of requests
    digest: str
    engine: str
    model: str | None = None
    sentence: str | None = None  # why it came or went
    step_at: datetime | None = None  # of a candidate: since when it has its share
    made_by: str
    made_at: datetime
    settled_at: datetime | None = None


class ReplicaView(Wire):
    """One replica: a run of its own, on a lease of its own."""

    run_id: str
    run: str
    run_state: str
    version_no: int
    state: str  # starting, ready, draining, gone
    attempt_no: int = 0
    node: str | None = None
    address: str | None = None
    port: int | None = None
    model_digest: str | None = None
    waits: str | None = None  # why its run is still in the queue
    run_sentence: str | None = None
    why: str | None = None  # it was made, drained or is gone
    warm_up_s: float | None = None  # from being made to being ready, the queue included
    age_s: float
    made_at: datetime
    ready_at: datetime | None = None
    draining_at: datetime | None = None
    gone_at: datetime | None = None


class ScalingView(Wire):
    """One decision about how many replicas there shall be."""

    at: datetime
    wanted: int
    had: int
    ready: int
    demand: float  # in the spec's metric: requests under way, or a second
    panic: bool
    why: str


class SloView(Wire):
    """How a service stands against the latency it promises for 99 of 100 requests."""

    p99_ms: float
    state: Literal["kept", "burning", "missed", "unmeasured"]
    burn: float | None = None  # times the slow requests that are allowed, over the last hour
    burn_now: float | None = None  # over the last five minutes
    seen_p99_ms: float | None = None
    requests: int  # that were answered in the last hour


class ExampleView(Wire):
    """One request that a service answers."""

    name: str
    method: Literal["GET", "POST"]
    url: str
    body: dict[str, Any] | None = None
    said: Literal["messages", "prompt", "input", "text_input"] | None = None  # key of a person's text
    streams: bool = False
    takes_bytes: bool = False  # a body that is no JSON is sent as it is
    curl: str  # the same as a command


class ServiceDetail(Wire):
    service: ServiceView
    versions: list[ServiceVersionView]
    replicas: list[ReplicaView]
    scalings: list[ScalingView]
    slo: SloView | None = None
    examples: list[ExampleView] = Field(default_factory=list)  # the most wanted first; none without a gateway
    spec: dict[str, Any]


class TrafficSum(Wire):
    """What was asked and answered in one stretch. Where nothing was asked shares and percentiles are None."""

    requests: int  # all, however they ended
    answered: int  # below 500, whole: what latencies are of
    errors: int  # ours: answered by 500 or above, broken off, or lost
    lost: int  # of these: no replica gave a first byte
    refused: int  # by limits, size or a full queue, before a replica was asked
    slow: int  # slower than the SLO
    cache_hits: int
    collapsed: int  # that shared the answer to an equal request under way
    retried: int
    tokens_in: int
    tokens_out: int
    bytes_in: int
    bytes_out: int
    requests_per_s: float
    tokens_per_s: float
    error_ratio: float | None = None  # of what was not refused, like the next
    cache_hit_ratio: float | None = None
    slow_ratio: float | None = None  # of what was answered
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    first_byte_p50_ms: float | None = None
    first_byte_p99_ms: float | None = None


class TrafficPoint(TrafficSum):
    at: datetime  # when the step began
    concurrency: float  # requests under way: counted of late, before that reckoned from latencies
    wanted: int | None = None
    ready: int


class TrafficView(Wire):
    window: str
    from_at: datetime
    until_at: datetime
    step_s: int
    total: TrafficSum
    points: list[TrafficPoint]


class ServiceCost(Wire):
    """What the replicas of a window came to, in one currency, and by what they answered."""

    currency: str
    replicas: int
    accelerator_hours: Decimal
    revenue: Decimal
    cost: Decimal | None  # what it costs us is not a customer's to see
    revenue_per_1000_requests: Decimal | None = None
    cost_per_1000_requests: Decimal | None = None
    revenue_per_million_tokens: Decimal | None = None
    cost_per_million_tokens: Decimal | None = None
    requests: int  # that were answered
    tokens: int
    accruing: bool = False  # part of it is not posted yet
    estimated: bool = False  # a replica was there outside the window as well, and gives a part by its time


class ServiceCostView(Wire):
    window: str
    from_at: datetime
    until_at: datetime
    items: list[ServiceCost]


class Bounds(Wire):
    """How many replicas there may be; what is left out stays."""

    least: int | None = Field(default=None, ge=0, le=10_000)
    most: int | None = Field(default=None, ge=1, le=10_000)


class ModelView(Wire):
    """One model that was served here."""

    model_id: str
    name: str
    digest: str
    tenant: str
    project: str
    source: str
    origin_run_id: str | None = None  # the training run that made it
    origin_run: str | None = None
    evaluation: dict[str, float] = Field(default_factory=dict)  # by the name of the figure
    bytes: int
    license: str | None = None
    engine: str
    served_by: list[str] = Field(default_factory=list)  # services that serve it now
    made_at: datetime


# ---- fleet ----------------------------------------------------------------------------------------------------


class NodeView(Wire):
    node_id: str
    name: str
    site: str
    state: str
    health: str
    reachable: bool
    address: str
    isolation: str
    models: dict[str, int]  # accelerators by model
    free: dict[str, int]
    memory_mib: int
    disk_mib: int
    seen_at: datetime | None = None
    runs: list[str] = Field(default_factory=list)
    rack: str | None = None  # None where it is not known, of all three
    leaf: str | None = None  # switch of the network
    pod: str | None = None  # of the network: a group of leaves


class NewMount(Wire):
    """Where a node hangs. A field that is left out stays as it is; null takes it off."""

    rack: str | None = None
    leaf: str | None = None
    pod: str | None = None


class Rehung(Wire):
    """What a file of mounts came to."""

    nodes: int  # it names
    changed: int  # of them that hang otherwise than before


class NewRack(Wire):
    """A rack and its breaker, as an operator sets it."""

    site: str
    breaker_watts: int
    derating: Decimal = Decimal("0.8")  # the part of the breaker that may be drawn all the time
    base_watts: int = 0  # drawn by hosts, switches and fans while no accelerator works


class RackView(Wire):
    rack: str
    site: str
    breaker_watts: int
    derating: Decimal
    base_watts: int
    load_watts: int  # that runs may draw together
    drawn_watts: int  # rated, by what is leased there now
    spare_watts: int
    nodes: list[str]


class NewTest(Wire):
    """What an operator asks of a test."""

    profile: str = "quick"  # a name of workloads.burn_in.profile.PROFILES


class BurnInView(Wire):
    """One test of one node: a run of the platform's own, and what it came to."""

    run_id: str
    node: str
    model: str
    occasion: Literal["joining", "re_entry", "asked", "periodic"]
    profile: str
    asked_by: str
    asked_at: datetime
    state: str | None = None  # of the run; None for the moment until it is submitted
    verdict: Literal["passed", "failed", "void"] | None = None
    sentence: str | None = None  # the figure that failed, or why there is no verdict
    judged_at: datetime | None = None


class FigureView(Wire):
    """One thing a burn-in measured, beside what it should be and what it used to be."""

    run_id: str
    profile: str
    accelerator_id: str | None = None  # None: of all accelerators of the model together
    serial: str | None = None
    device_index: int | None = None
    model: str
    test: str  # gemm, memory, bus, ...; see workloads.burn_in.figure.Test
    variant: str  # number format, way, collective, ...
    size_bytes: int | None = None
    value: float | None = None
    unit: str
    state: Literal["value", "unsupported"]
    sentence: str | None = None  # why there is no value
    peak: float | None = None  # of the data sheet, in the same unit; None: no peak known
    ratio: float | None = None  # value over peak
    fleet_median: float | None = None  # over the newest figures of the same model, three accelerators or more
    fleet_ratio: float | None = None
    own_median: float | None = None  # over this accelerator's earlier figures, three or more
    own_ratio: float | None = None
    alert: str | None = None  # a sentence, where it is far below one of them
    origin: Literal["measured", "simulated"]
    software: dict[str, str] = Field(default_factory=dict)
    at: datetime


class NodeFigures(Wire):
    """What is known of a node's performance."""

    node: str
    node_id: str
    state: str
    burn_ins: list[BurnInView]  # newest first, the last 20
    figures: list[FigureView]  # the newest of each accelerator, test and variant; of a bus the best size


class Offer(Wire):
    """One thing that can be leased here: model, how many exist and are free, and its price."""

    model: str
    site: str
    total: int
    free: int
    memory_gib: float | None = None
    price_per_hour: Decimal
    currency: str = "USD"
    largest_single_node: int = 0


class QueueModelView(Wire):
    """What one queue and those below it have of one accelerator model."""

    model: str
    quota: int | None = None  # guaranteed; None: what the queue above it is guaranteed is drawn on
    limit: int | None = None  # never exceeded; None: no limit of its own
    held: int = 0  # by runs that are not spot
    spot: int = 0
    usage_accelerator_h: float = 0.0  # held lately, each hour counted by half for every half-life it is ago


class NamedQueueView(Wire):
    """One queue: whose it is, what it may, and what is in it."""

    name: str
    parent: str | None = None
    tenant: str | None = None  # None: everybody may use it
    project: str | None = None  # None: all projects of the tenant
    weight: float
    half_life_s: float
    below: list[str] = Field(default_factory=list)  # runs wait in queues that have none below
    waiting: int = 0
    running: int = 0
    models: list[QueueModelView] = Field(default_factory=list)
    note: str | None = None  # that quotas promise more than there is


class QueueSetting(Wire):
    """What an operator says of a queue; what is left out stays as it is."""

    parent: str | None = None  # `root`: below none
    weight: float | None = None
    quota: dict[str, int] | None = None  # all of it, by model; {}: none
    limit: dict[str, int] | None = None
    half_life_s: float | None = None
    tenant: str | None = None
    project: str | None = None
    shared: bool = False  # everybody may use it


# ---- health ---------------------------------------------------------------------------------------------------


class EvidenceView(Wire):
    """One thing that speaks against a device or node, under the rule that took it up."""

    evidence_id: str
    rule: str
    subject_kind: Literal["accelerator", "node"]
    subject: str  # an accelerator's serial, or the node's id
    at: datetime
    ended_at: datetime | None = None  # None while it stands
    ended_by: str | None = None  # ceased, expired, repaired, or who cleared it
    acknowledged_by: str | None = None  # who has seen it and takes care of it
    severity: Literal["info", "warning", "critical"]
    action: str  # what the rule asks for: note, ticket, cordon, reset, reboot, ...
    code: int | None = None  # Xid, SXid or AFID
    before: float | None = None  # the raw counter or value, where there is one
    after: float | None = None
    witnesses: list[str] = Field(default_factory=list)  # who saw it: metrics, kernel, redfish, runs
    sentence: str


class VerdictView(Wire):
    """What stands about one accelerator or node, and why."""

    subject_kind: Literal["accelerator", "node"]
    subject: str
    health: Literal["healthy", "suspect", "faulty"]
    action: str | None = None  # the most that its evidence asks for
    rules: list[str] = Field(default_factory=list)
    since: datetime | None = None
    sentence: str | None = None


class RepairView(Wire):
    """One step that shall make a node well again."""

    repair_id: str
    node_id: str
    node: str
    serials: list[str] = Field(default_factory=list)  # of the accelerators it is about; empty: the whole node
    step: str  # fabric, reset, reboot, power_cycle, reseat, rma, inspect
    state: Literal["proposed", "approved", "ordered", "done", "failed", "dismissed"]
    by_agent: bool  # carried out by the node's agent; otherwise by a person
    needs_approval: bool
    rule: str
    sentence: str  # why
    instructions: str  # what exactly to do
    opened_at: datetime
    approved_by: str | None = None
    ended_at: datetime | None = None
    outcome: str | None = None


class Clearing(Wire):
    """Whose evidence no longer holds, and why."""

    evidence_id: str | None = None  # None: all that stands
    reason: str | None = Field(default=None, max_length=1000)


class NodeHealth(Wire):
    """A node's health: its verdict, what it rests on, and what is being done."""

    node_id: str
    node: str
    state: str
    health: Literal["healthy", "suspect", "faulty"]
    since: datetime | None = None
    sentence: str | None = None
    held: str | None = None  # why a move that is due is not made yet
    judged_at: datetime | None = None  # None: never; old: the samples cannot be asked
    unjudged: str | None = None  # why the last look could not judge
    verdicts: list[VerdictView] = Field(
        default_factory=list
    )  # of its accelerators, the healthy ones left out
    evidence: list[EvidenceView] = Field(default_factory=list)
    repairs: list[RepairView] = Field(default_factory=list)


# ---- tenancy --------------------------------------------------------------------------------------------------


class TenantView(Wire):
    tenant_id: str
    name: str
    projects: list[str] = Field(default_factory=list)


class NewToken(Wire):
    site: str = Field(default="local", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


class NewKey(Wire):
    name: str = Field(min_length=1, max_length=100)
    role: Literal["operator", "customer", "finance", "investor", "viewer"]
    tenant: str | None = None
    project: str | None = None
    expires_in_s: int | None = Field(default=None, ge=1, le=100 * 366 * 86_400)  # None: never
    scopes: list[str] = Field(default=[], max_length=100)  # `call`, `service:NAME`; none: all its role may do
    requests_per_minute: int | None = Field(default=None, ge=1, le=10**9)  # at the gateway
    tokens_per_minute: int | None = Field(default=None, ge=1, le=10**9)


class KeyView(Wire):
    key_id: str
    name: str
    role: str
    tenant: str | None = None
    project: str | None = None  # whose services alone it calls
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    scopes: list[str] | None = None  # None: whatever its role may do
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    secret: str | None = None  # only in the answer that made it


class SecretView(Wire):
    name: str
    project: str
    updated_at: datetime


# ---- books ----------------------------------------------------------------------------------------------------


class Balance(Wire):
    account: str
    currency: str
    debits: Decimal
    credits: Decimal
    balance: Decimal  # debits less credits
    pending: Decimal = Decimal(0)  # reserved and not posted yet, debits less credits


class TrialBalance(Wire):
    at: datetime
    balances: list[Balance]
    difference: Decimal  # zero, or the books are wrong
    digest: str = ""  # SHA-256 of the balances in their canonical form: equal hashes, equal books


class AccountView(Wire):
    """One account in each of its currencies."""

    at: datetime
    account: str
    balances: list[Balance]


class FindingView(Wire):
    check: str
    sentence: str


class PeriodView(Wire):
    """A month of the books that was begun to be closed."""

    period: str
    state: Literal["open", "closing", "closed"]
    began_at: datetime | None = None
    began_by: str | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    digest: str | None = None
    transfers: int | None = None


class CloseView(Wire):
    """What came of closing a month: it is closed, or the findings stand against it."""

    period: str
    state: Literal["open", "closing", "closed"]
    digest: str | None = None  # of the trial balance at its end
    transfers: int | None = None  # from the first one of the books on
    closed_at: datetime | None = None
    findings: list[FindingView] = Field(default_factory=list)


class AuditView(Wire):
    """A recomputation of the books from their first transfer on; a finding blocks publication."""

    ran_at: datetime
    took_s: float
    transfers: int
    digest: str
    findings: list[FindingView] = Field(default_factory=list)


class TimeRow(Wire):
    """How long the accelerators of one subject were in one bucket."""

    subject: str | None = None  # a site, a model, a node's id; None by bucket
    label: str | None = None
    start_at: datetime | None = None  # of the step, where steps were asked for
    bucket: str
    accelerator_hours: Decimal
    micro_seconds: int  # the same, exactly
    share_ratio: float  # of what was installed of the subject, in the step
    used: bool
    sold: bool
    available: bool
    fault: str


class WithheldHour(Wire):
    """One hour of one site that does not add up, so that its figures are in no sum."""

    hour: datetime
    site: str
    sentence: str


class TimeView(Wire):
    """What every second of the accelerators was, over whole UTC hours."""

    from_at: datetime
    until_at: datetime
    by: str
    installed_hours: Decimal
    installed_us: int
    items: list[TimeRow]
    closed_until: datetime | None = None  # hours from here on are provisional
    provisional: bool = False  # some of them are in it
    open_left_out: bool = False  # or left out, for there are too many accelerators to reckon them now
    checked_at: datetime | None = None  # when every hour was last held against installed time
    withheld: list[WithheldHour] = Field(default_factory=list)
    revised: int = 0  # hours of one accelerator that late facts changed after they were closed
    simulated: bool = False


class NewCustomer(Wire):
    """The legal person that pays for a tenant. A CNPJ may be written with its punctuation, and may hold letters."""

    tenant: str
    legal_name: str
    country: str = "BR"
    tax_id: str
    currency: str = "BRL"  # of its invoices: BRL or USD


class CustomerView(Wire):
    customer_id: str
    tenant_id: str
    legal_name: str
    country: str
    tax_id: str
    currency: str


class CommitmentView(Wire):
    model: str
    count: int
    site: str | None = None  # any


class StepView(Wire):
    """Below this availability of a month, that share of its charge comes back; both from 0 to 1."""

    below: Decimal
    credit: Decimal


class NewContract(Wire):
    name: str
    tenant: str
    project: str | None = None
    term: str  # on_demand, reserved, spot, research
    currency: str
    from_at: AwareDatetime
    until_at: AwareDatetime | None = None
    months: int | None = None  # instead of until_at
    list: str | None = None  # its own price list
    discount: Decimal = Decimal(0)  # 0 to less than 1
    minimum: Decimal | None = None  # least spend of a month
    commitments: tuple[CommitmentView, ...] = ()
    promise: tuple[StepView, ...] = ()


class ContractView(Wire):
    contract_id: str
    name: str
    customer_id: str
    tenant_id: str
    project_id: str | None
    term: str
    currency: str
    from_at: datetime
    until_at: datetime | None
    ended_at: datetime | None
    list: str | None
    discount: Decimal
    minimum: Decimal | None
    commitments: tuple[CommitmentView, ...]
    promise: tuple[StepView, ...]


class EndOfContract(Wire):
    at: AwareDatetime | None = None  # now
    reason: str


class SeatEventView(Wire):
    """A turn of one of the accelerators that a contract holds ready; `baseai books sla` reckons with a line of each."""

    event_id: str
    subject: str
    turn: str  # down, up
    at: datetime


class NewPrices(Wire):
    """A price sheet as CSV text; its columns are explained by finance/price_sheet.py and `baseai price --help`."""

    csv: str
    list: str = "list"
    file: str = "prices.csv"  # how mistakes name it


class TierView(Wire):
    from_volume: Decimal
    rate: Decimal


class PriceView(Wire):
    price_id: str
    list: str
    meter: str
    model: str | None
    site: str | None
    term: str
    months: int | None
    unit: str
    currency: str
    tiers: tuple[TierView, ...]
    peaks: tuple[str, ...]
    valid_from: datetime
    valid_until: datetime | None
    source: str


class NewBulletins(Wire):
    """Days to ask the central bank about, both counted."""

    from_on: date
    until_on: date


class BulletinView(Wire):
    """What PTAX was on a day; without a rate when the bank published none."""

    day: date
    sell: Decimal | None
    bulletin_at: datetime | None
    fetched_at: datetime


class ExchangeView(Wire):
    """The rate that holds on a day: the closing one of the last business day before."""

    asked: date
    sell: Decimal
    day: date
    bulletin_at: datetime | None
    note: str


class UsageEventBody(Wire):
    """One thing used, told by who serves it. The same event_id again is harmless, with another body refused."""

    source: str
    event_id: str
    tenant_id: str
    project_id: str
    meter: str
    quantity: int
    unit: str
    from_at: AwareDatetime
    until_at: AwareDatetime
    run_id: str | None = None
    model: str | None = None
    site_id: str | None = None
    corrects: str | None = None


class NewUsageEvents(Wire):
    events: tuple[UsageEventBody, ...] = Field(min_length=1, max_length=10_000)


class UsageEventsTaken(Wire):
    new: int
    repeated: int


class RatedLineView(Wire):
    rated_id: str
    category: str
    amount: Decimal
    currency: str
    meter: str
    quantity: Decimal  # in priced units: accelerator-hours
    unit: str
    unit_price: Decimal
    list_price: Decimal
    period: str
    effective_from: datetime
    effective_until: datetime
    recorded_at: datetime
    tenant_id: str
    project_id: str | None
    contract_id: str | None
    price_id: str | None
    tier: int
    band: int
    usage_id: str | None
    corrects: str | None
    run_id: str | None
    lease_id: str | None
    model: str | None
    node_id: str | None
    site_id: str | None
    note: str | None


class NewInvoice(Wire):
    customer: str = Field(description="By id, tenant, legal name or tax id.")
    period: str = Field(description="A month that is over, like 2026-11.")


class BehindLineView(Wire):
    run_id: str | None
    run: str | None
    lease_id: str | None
    serial: str | None
    quantity: Decimal
    micros: int  # in the line's own currency


class InvoiceLineView(Wire):
    line_no: int
    category: str
    meter: str
    unit: str  # what the price is for
    quantity: Decimal | None
    unit_price: Decimal | None
    currency: str  # of the price
    amount: Decimal  # in the document's currency, to the cent
    exact: Decimal  # the same before it was rounded
    of_period: str  # the month of the use
    from_at: datetime
    until_at: datetime
    takes_back: bool
    model: str | None
    site_id: str | None
    contract: str | None
    price_id: str | None
    note: str | None
    behind: list[BehindLineView]


class InvoiceView(Wire):
    invoice_id: str | None  # None: a draft, by which nobody owes anything
    kind: str  # invoice, supplement or credit_note
    customer: dict[str, str]
    period: str
    currency: str
    total: Decimal
    issued_at: datetime | None
    due_on: date | None
    corrects: str | None  # the document that it names
    conversion: dict[str, Any] | None
    lines: list[InvoiceLineView]


class TransferView(Wire):
    transfer_id: str
    debit: str
    credit: str
    amount: Decimal
    currency: str
    effective_at: datetime
    run_id: str | None = None
    accelerator: str | None = None
    note: str | None = None


class NewReservation(Wire):
    """Capacity asked for ahead: so many nodes with so many accelerators each, at one site, from when to when."""

    name: str
    gpu: str  # model and accelerators on each node, `H100:8`
    nodes: int = 1
    site: str
    from_at: AwareDatetime
    until_at: AwareDatetime
    take_or_pay: bool = False
    forfeit_after: str | None = None  # of a hold nobody uses, after its start: `30m`
    tenant: str | None = None  # for operators
    project: str | None = None


class ReservationView(Wire):
    reservation_id: str
    name: str
    tenant: str
    project: str
    nodes: int
    accelerators: int  # on each node
    model: str
    site: str
    from_at: datetime
    until_at: datetime
    kind: str  # hold or take_or_pay
    forfeit_at: datetime | None = None  # where it is a hold that nobody has used by then
    state: str
    in_use: int  # accelerators that its own runs hold on it now
    made_by: str
    made_at: datetime
    used_at: datetime | None = None
    ended_at: datetime | None = None


class NewMaintenance(Wire):
    """Nodes, or a whole site, out of service from when to when."""

    nodes: list[str] = Field(default_factory=list, max_length=10_000)
    site: str | None = None
    from_at: AwareDatetime
    until_at: AwareDatetime
    why: str
    notice: str | None = None  # so long before, nothing starts there that could outlive the start: `24h`


class NodeInWindowView(Wire):
    node: str
    state: str
    taken_at: datetime | None = None  # when it was drained for the window
    returned_at: datetime | None = None  # when it was sent to its tests, or given back


class MaintenanceView(Wire):
    maintenance_id: str
    site: str | None = None  # None where single nodes are meant
    nodes: list[NodeInWindowView]
    from_at: datetime
    until_at: datetime
    notice_s: int
    why: str
    state: str
    made_by: str
    made_at: datetime
    ended_at: datetime | None = None


class Longer(Wire):
    """How much longer a run shall go on, as a duration: `6h`."""

    by: str


class Extended(Wire):
    run_id: str
    name: str
    ends_at: datetime


class EconomicsRowView(Wire):
    """One model, site, customer or round over a month: time, revenue, costs by nature, and what is left."""

    part: str  # subject; idle and overhead where rows are by customer
    subject: str | None = None
    label: str
    installed_hours: Decimal
    available_hours: Decimal
    sold_hours: Decimal
    occupied_hours: Decimal
    utilisation_ratio: float | None = None  # sold ÷ available
    occupied_ratio: float | None = None
    active_ratio: float | None = None  # mean activity that accelerators counted while they were held
    revenue: Decimal
    revenue_per_available_hour: Decimal | None = None
    revenue_per_sold_hour: Decimal | None = None
    costs: dict[str, Decimal]  # by nature
    cost: Decimal
    cost_low: Decimal  # all assumptions low, and high
    cost_high: Decimal
    accruing: Decimal  # what of the costs is not posted yet
    contribution: Decimal  # revenue − energy − colocation − network − payment fees − variable support
    contribution_ratio: float | None = None
    depreciation: Decimal  # not in the contribution
    result: Decimal  # revenue − all costs
    capital_recovery: Decimal  # in the place of depreciation, with the return that capital asks for
    after_capital: Decimal
    transfers: int


class EnergyPartView(Wire):
    origin: str  # measured, estimated, simulated: never added up
    kwh: Decimal
    accelerator_hours: Decimal


class EconomicsView(Wire):
    """A month of the books, or what there is of it."""

    period: str
    by: str
    case: str
    currency: str
    until_at: datetime
    rows: list[EconomicsRowView]
    total: EconomicsRowView
    energy: list[EnergyPartView]
    assumptions: list[str]  # their ids
    stale: list[str] = Field(default_factory=list)  # those that nobody has looked at for 180 days
    exchange: list[str] = Field(default_factory=list)
    apart: dict[str, Decimal] = Field(default_factory=dict)  # revenue of currencies without a rate: in no row
    withheld: list[str] = Field(default_factory=list)  # why figures must not be published
    basis: list[str] = Field(default_factory=list)


class BehindFigureView(Wire):
    """One transfer, or one accelerator's hour in one bucket, that a figure is made of."""

    id: str
    at: datetime
    amount: Decimal | None = None
    currency: str | None = None
    micro_seconds: int | None = None
    what: str  # accounts of a transfer, or the bucket
    tenant_id: str | None = None
    run_id: str | None = None
    lease_id: str | None = None
    serial: str | None = None
    model: str | None = None
    site: str | None = None
    price_id: str | None = None
    note: str | None = None


class AssumptionView(Wire):
    """One version of one cost assumption."""

    assumption_id: str
    subject: str
    name: str
    low: Decimal
    default: Decimal
    high: Decimal
    unit: str
    currency: str | None = None
    source: str
    source_on: date
    mark: str
    valid_from: datetime
    recorded_by: str
    stale: bool = False
    holds: bool = True  # it is the one that costs are reckoned from now


class NewAssumption(Wire):
    """A version that holds from an instant on; nothing before it changes."""

    subject: str = Field(max_length=200)
    name: str
    low: Decimal
    default: Decimal
    high: Decimal
    currency: str | None = None
    source: str = Field(min_length=1, max_length=500)
    source_on: date | None = None  # otherwise today
    mark: str
    valid_from: AwareDatetime | None = None  # otherwise now


class SuggestionView(Wire):
    """A price that the rules of yield would set. It changes nothing until somebody applies it."""

    suggestion_id: str
    model: str
    site: str | None = None
    term: str
    currency: str
    now_rate: Decimal | None = None  # None: there is no price of that term yet
    rate: Decimal
    floor_rate: Decimal  # the variable cost of an hour
    rule: str
    facts: dict[str, str | None]
    sentence: str
    made_at: datetime
    state: str
    settled_at: datetime | None = None
    settled_by: str | None = None
    price_id: str | None = None


class SuggestionsView(Wire):
    items: list[SuggestionView]
    kept: list[str] = Field(default_factory=list)  # prices that stay, and why


class ApplySuggestion(Wire):
    list: str = "list"


class Page(Wire):
    """A list, a page of it: `next` is the cursor of the following page or None."""

    items: list[Any]
    next: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[SpecProblem] = Field(default_factory=list)
