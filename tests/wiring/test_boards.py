"""A node's management controllers: their account, their address, and their readings under the platform's serials."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from baseai.agent.main import AgentSettings
from baseai.agent.roster import Roster
from baseai.agent.watch import Watch
from baseai.api.schemas import Device, Samples, Witness
from baseai.ground.fault import Refused
from baseai.telemetry.collector import Collector, Rank
from baseai.wiring.eyes import board_account, check_boards, collectors_of
from tests.telemetry.board.trees import FIRST, GPU_0, SECOND, excerpt
from tests.telemetry.redfish_server import PASSWORD, USER, RedfishServer, serving

ENVIRONMENT = {"BASEAI_REDFISH_USER": "reader", "BASEAI_REDFISH_PASSWORD": "pass:word"}


def written(file: Path, text: str, *, mode: int = 0o600) -> Path:
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("environ", "account"),
    [
        pytest.param(ENVIRONMENT, ("reader", "pass:word"), id="of the environment"),
        pytest.param({}, None, id="none: the controller answers anybody"),
    ],
)
def test_an_account_of_the_environment(environ: Mapping[str, str], account: tuple[str, str] | None) -> None:
    assert board_account(None, environ) == account


def test_half_an_account_is_refused() -> None:
    with pytest.raises(Refused, match="go together"):
        board_account(None, {"BASEAI_REDFISH_USER": "reader"})


def test_a_file_wins_and_may_hold_colons_in_the_password(tmp_path: Path) -> None:
    file = written(tmp_path / "bmc", "operator:a:b c\n")
    assert board_account(file, ENVIRONMENT) == ("operator", "a:b c")


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        pytest.param("reader:secret", 0o644, "others can read it", id="readable by others"),
        pytest.param("reader", 0o600, "one line, user:password", id="no password"),
        pytest.param(":secret", 0o600, "one line, user:password", id="no user"),
        pytest.param("a:b\nc:d", 0o600, "one line, user:password", id="two lines"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        board_account(written(tmp_path / "bmc", text, mode=mode), {})
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        board_account(tmp_path / "none", {})


def test_a_bad_address_is_refused_before_anything_is_started() -> None:
    with pytest.raises(Refused, match="unprotected"):
        check_boards(["http://10.0.0.7"], None)


def test_a_password_is_in_no_text_of_the_settings(tmp_path: Path) -> None:
    settings = AgentSettings(folder=tmp_path, url="https://p", redfish_account=("reader", "hunter2"))
    assert "hunter2" not in repr(settings)


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    return AgentSettings(folder=tmp_path, url="http://127.0.0.1:1", redfish_account=(USER, PASSWORD))


def board_of(settings: AgentSettings) -> Collector:
    [found] = [each for each in collectors_of(settings) if each.rank == Rank.BOARD]
    return found


def test_without_an_address_there_is_no_board(settings: AgentSettings) -> None:
    assert [each.name for each in collectors_of(settings) if each.rank == Rank.BOARD] == []


@pytest.mark.anyio
async def test_readings_arrive_under_the_platforms_serials_and_the_nodes_name(tmp_path: Path) -> None:
    """The driver knows the two devices by UUID; the board's serial names both and resolves neither."""
    kept: list[Samples] = []
    witnesses: list[Witness] = []

    def keep(batches: Sequence[Samples], told: Sequence[Witness]) -> None:
        kept.extend(batches)
        witnesses.extend(told)

    devices = [
        Device(serial="0001", model="GB300", index=0, memory_mib=0, uuid=FIRST),
        Device(serial="0002", model="GB300", index=1, memory_mib=0, uuid=SECOND),
    ]
    tree = excerpt("gb300")
    with serving(RedfishServer(tree=tree)) as server:
        server.put(GPU_0, "/Status/Health", "Critical")
        settings = AgentSettings(
            folder=tmp_path,
            url="http://127.0.0.1:1",
            redfish=(server.url,),
            redfish_account=(USER, PASSWORD),
            redfish_every_s=2.0,
        )
        watch = Watch(
            [board_of(settings)],
            roster=Roster(devices),
            boot_id="boot",
            node_id="node_1",
            keep=keep,
            own_rows=lambda ts_ms: (),
            chance=random.Random(3),
        )
        running = asyncio.create_task(watch.run())
        for _ in range(400):
            if any(each.values.get("power_w") and each.family == "node" for each in kept):
                break
            await asyncio.sleep(0.025)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    power = {
        (each.family, key): watts
        for each in kept
        for key, watts in zip(each.keys, each.values.get("power_w", [None] * len(each.keys)), strict=True)
    }
    assert power == {
        ("accelerator", "0001"): 231.939,
        ("accelerator", "0002"): 238.856,
        ("node", "node_1"): 1355.398772,
    }
    assert [(each.key, each.severity) for each in witnesses] == [("0001", "critical")]
