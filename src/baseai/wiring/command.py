"""The command `baseai`: the terminal's verbs, and those that start or end processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from baseai.ground.fault import Refused
from baseai.settings import (
    DEFAULT_PORT,
    PlatformSettings,
    checked,
    data_folder,
    refuse_unknown,
    runtime_folder,
)

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder (BASEAI_DATA, else ~/.baseai; root: /var/lib/baseai)."),
]

AllowRepairs = Annotated[
    bool,
    typer.Option(
        "--allow-repairs",
        help="Let the agent reset accelerators, restart the fabric manager and reboot when told to; needs root.",
    ),
]
SampleEvery = Annotated[
    float, typer.Option("--sample-every", min=0.5, help="Seconds between two samples of every accelerator.")
]
Scrape = Annotated[
    list[str] | None,
    typer.Option(
        "--scrape",
        help="Exporter to read as well (DCGM, AMD, node), http://127.0.0.1:9400/metrics; repeatable.",
    ),
]
Redfish = Annotated[
    list[str] | None,
    typer.Option(
        "--redfish", help="Management controller (BMC) to ask as well, https://10.0.0.7; repeatable."
    ),
]
RedfishCredentials = Annotated[
    Path | None,
    typer.Option("--redfish-credentials", help="File with user:password of an account that may read it."),
]
RedfishCaFile = Annotated[
    Path | None, typer.Option("--redfish-ca-file", help="Certificate that signs the controller's.")
]
RedfishInsecure = Annotated[
    bool,
    typer.Option("--redfish-insecure", help="Do not verify it: anybody between can read the password."),
]


RackName = Annotated[
    str | None, typer.Option("--rack", help="Rack it stands in; an operator's word goes before it.")
]
LeafName = Annotated[str | None, typer.Option("--leaf", help="Leaf switch it hangs on, likewise.")]
PodName = Annotated[str | None, typer.Option("--pod", help="Pod of the network above that leaf, likewise.")]


def up(
    data: Data = None,
    listen: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with --tls-cert.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = DEFAULT_PORT,
    database: Annotated[
        str | None,
        typer.Option(
            help="A PostgreSQL to use instead of the embedded one, postgresql://… (BASEAI_DATABASE)."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Address that links and join commands name, https://cloud.example.")
    ] = None,
    agent: Annotated[
        bool, typer.Option("--agent/--no-agent", help="Whether this machine is a node as well.")
    ] = True,
    node_name: Annotated[str | None, typer.Option(help="Name of this machine in the fleet.")] = None,
    node_address: Annotated[
        str | None, typer.Option(help="Address where other nodes reach this one.")
    ] = None,
    cpu_slots: Annotated[
        int | None, typer.Option(help="CPU slots this machine offers; all cores by default.")
    ] = None,
    rack: RackName = None,
    leaf: LeafName = None,
    pod: PodName = None,
    run_user: Annotated[str | None, typer.Option(help="User that runs are started as; needs root.")] = None,
    allow_repairs: AllowRepairs = False,
    gateway_port: Annotated[
        int | None,
        typer.Option(help="Port of the gateway to services; the one after --port by default, 0 a free one."),
    ] = None,
    public_gateway_url: Annotated[
        str | None, typer.Option(help="Address that examples of calls name, https://models.cloud.example.")
    ] = None,
    gateways: Annotated[
        int,
        typer.Option(help="Gateway processes on that port, about one a core that they may fill; 0 for none."),
    ] = 1,
    shared_cache: Annotated[
        str | None,
        typer.Option(
            help="Redis or Valkey in which gateways share kept answers; BASEAI_SHARED_CACHE likewise."
        ),
    ] = None,
    sample_every: SampleEvery = 10.0,
    scrape: Scrape = None,
    redfish: Redfish = None,
    redfish_credentials: RedfishCredentials = None,
    redfish_ca_file: RedfishCaFile = None,
    redfish_insecure: RedfishInsecure = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Go on in the background; `baseai down` ends it.")
    ] = False,
) -> int:
    """Run the platform on this machine: database, server, controller, gateway and agent.

    It stays in the foreground until Ctrl-C and prints a link that signs your browser in.
    """
    settings = checked(
        PlatformSettings(
            data=data_folder(data, os.environ),
            listen=listen,
            port=port,
            database=database or os.environ.get("BASEAI_DATABASE"),
            tls_cert=tls_cert.absolute() if tls_cert else None,
            tls_key=tls_key.absolute() if tls_key else None,
            public_url=public_url,
            agent=agent,
            node_name=node_name,
            node_address=node_address,
            cpu_slots=cpu_slots,
            rack=rack,
            leaf=leaf,
            pod=pod,
            run_user=run_user,
            allow_repairs=allow_repairs,
            gateway_port=gateway_port,
            public_gateway_url=public_gateway_url,
            gateways=gateways,
            shared_cache=shared_cache or os.environ.get("BASEAI_SHARED_CACHE"),
            sample_every_s=sample_every,
            scrape=tuple(scrape or ()),
            redfish=tuple(redfish or ()),
            redfish_credentials=redfish_credentials.absolute() if redfish_credentials else None,
            redfish_ca_file=redfish_ca_file.absolute() if redfish_ca_file else None,
            redfish_insecure=redfish_insecure,
        )
    )
    if settings.redfish:
        from baseai.wiring.eyes import check_boards

        check_boards(settings.redfish, settings.redfish_credentials)
    if detach:
        return _detached(settings.data)
    return run_platform(settings)


def run_platform(settings: PlatformSettings) -> int:
    """Hold the data folder, start the platform, keep it running, end it."""
    from baseai.wiring.household import FolderUnusable, Household
    from baseai.wiring.rooms import health_policy
    from baseai.wiring.supervisor import Supervisor

    household = Household(data=settings.data)
    household.make()
    health_policy(
        household
    )  # what is wrong in it is told here, and not by a child that starts again and again
    with household.hold():
        supervisor = Supervisor(settings, household, runtime_folder(settings.data, os.environ), say)
        began = time.monotonic()
        try:
            try:
                supervisor.start()
            except OSError as wrong:
                raise FolderUnusable(str(settings.data), wrong.strerror or str(wrong)) from wrong
            if not supervisor.told_to_end:
                say(
                    f"baseai is up at {supervisor.settings.url} after {time.monotonic() - began:.1f} s,"
                    f" data in {settings.data}"
                )
                link = supervisor.ask("POST", "/api/v1/sign-in-links")["url"]
                say(f"sign in, once, within ten minutes: {link}")
                say(
                    "submit a run from another terminal: baseai apply -f examples/hello.yaml"
                    "   (Ctrl-C ends the platform)"
                )
                supervisor.run()
            say("ending: the runs first, the database last")
        finally:
            supervisor.end()
    return 0


def _detached(data: Path) -> int:
    """The same command without --detach, in a session of its own; back when it is up or has failed."""
    from baseai.wiring.household import Household

    household = Household(data=data)
    household.make()
    if household.is_held():
        household.hold()  # raises with the sentence
    log = household.logs / "supervisor.log"
    words = [word for word in sys.argv[1:] if word != "--detach"]
    with log.open("ab") as output:
        begin = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "baseai", *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    while True:
        told = log.read_bytes()[begin:].decode(errors="replace")
        if "sign in, once" in told:
            print(told.partition("\nsubmit a run")[0].strip())
            print(f"it goes on in the background (pid {child.pid}); `baseai down` ends it")
            return 0
        if child.poll() is not None:
            print(told.strip(), file=sys.stderr)
            return child.returncode or 1
        time.sleep(0.05)


def down(
    data: Data = None,
    within: Annotated[float, typer.Option(help="Seconds to wait for its end.")] = 90.0,
) -> int:
    """End the platform that runs on the data folder. Its runs go on from their checkpoints at the next `up`."""
    from baseai.wiring.household import Household

    household = Household(data=data_folder(data, os.environ))
    held, pid = household.is_held(), household.pid()
    if not held or pid is None:
        raise Refused(f"no platform runs on {household.data}")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it ends at this moment
    except PermissionError as wrong:
        raise Refused(
            f"the platform (pid {pid}) belongs to another user: only that user may end it"
        ) from wrong
    deadline = time.monotonic() + within
    while household.is_held():
        if time.monotonic() > deadline:
            raise Refused(
                f"the platform (pid {pid}) has not ended within {within:g} s; its log: {household.logs}"
            )
        time.sleep(0.05)
    print("ended")
    return 0


def agent(
    join: Annotated[str, typer.Option("--join", help="Address of the platform.")],
    token: Annotated[
        str | None,
        typer.Option(
            "--token", help="Join token, used once; `baseai node token` makes one. Not needed later."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of this node (~/.baseai-node; root: /var/lib/baseai-node)."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name in the fleet; the machine's own by default.")] = None,
    address: Annotated[str | None, typer.Option(help="Address where other nodes reach this one.")] = None,
    cpu_slots: Annotated[int | None, typer.Option(help="CPU slots to offer; all cores by default.")] = None,
    rack: RackName = None,
    leaf: LeafName = None,
    pod: PodName = None,
    run_user: Annotated[str | None, typer.Option(help="User that runs are started as; needs root.")] = None,
    allow_repairs: AllowRepairs = False,
    ca_file: Annotated[Path | None, typer.Option(help="Certificate that signs the platform's.")] = None,
    sample_every: SampleEvery = 10.0,
    scrape: Scrape = None,
    redfish: Redfish = None,
    redfish_credentials: RedfishCredentials = None,
    redfish_ca_file: RedfishCaFile = None,
    redfish_insecure: RedfishInsecure = False,
) -> int:
    """Make this machine a node of a platform elsewhere. It only dials out."""
    from baseai.agent.main import AgentSettings
    from baseai.wiring.eyes import board_account, watch_and_tend

    default = Path("/var/lib/baseai-node") if os.geteuid() == 0 else Path.home() / ".baseai-node"
    folder = (data or default).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # a run's own user passes through; what is private in it says so itself
    return watch_and_tend(
        AgentSettings(
            folder=folder, url=join.rstrip("/"), token=token, name=name, address=address, cpu_slots=cpu_slots,
            rack=rack, leaf=leaf, pod=pod, run_user=run_user, allow_repairs=allow_repairs, ca_file=ca_file,
            sample_every_s=sample_every,
            scrape=tuple(scrape or ()),
            redfish=tuple(redfish or ()), redfish_account=board_account(redfish_credentials, os.environ),
            redfish_ca_file=redfish_ca_file, redfish_insecure=redfish_insecure,
        )
    )  # fmt: skip


def say(sentence: str) -> None:
    print(sentence, flush=True)


def main() -> None:
    """Entry of the command `baseai`."""
    from baseai.catalog import load_catalog
    from baseai.cli.app import build_app
    from baseai.wiring.demo import demo

    try:
        refuse_unknown(os.environ)
    except Refused as wrong:
        print(f"baseai: {wrong}", file=sys.stderr)
        sys.exit(2)
    build_app({"up": up, "down": down, "agent": agent, "demo": demo}, catalog=load_catalog)()
