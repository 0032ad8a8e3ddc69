"""Carrying out repairs with harmless commands: once, by what is allowed, and what came of it told after any restart."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from baseai.agent.mend import COMMANDS, Argv, Mending
from baseai.api.schemas import Device, RepairOrder, Witness

pytestmark = pytest.mark.anyio
H100 = Device(serial="165", model="H100-SXM", index=3, uuid="GPU-5", pci="0000:9b:00.0")
MI300X = Device(serial="69", model="MI300X", index=5)


class Node:
    """One node's mending, over agents that come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = folder / "mark"
        self.told: list[Witness] = []
        self.busy = False
        self.agent()

    def agent(self, boot_id: str = "boot", timeout_s: float = 5.0) -> None:
        """A new agent starts."""
        self.mending = Mending(
            self.folder / "repairs.json", boot_id=boot_id, tell=self.told.append, timeout_s=timeout_s,
            commands={"reset": self._append, "reboot": self._append, "fabric": lambda devices: (("false",),),
                      "hang": lambda devices: (("sleep", "30"),), "lost": lambda devices: (("no-such-program",),)},
        )  # fmt: skip

    def _append(self, devices: Sequence[Device]) -> tuple[Argv, ...]:
        return tuple(("sh", "-c", f"echo {each.serial} >> {self.mark}; echo well") for each in devices)

    async def order(self, step: str, repair_id: str = "rep_1", devices: Sequence[Device] = (H100,)) -> None:
        order = RepairOrder(repair_id=repair_id, step=step, devices=list(devices))
        await self.mending.carry_out([order], busy=lambda: self.busy)

    @property
    def marks(self) -> list[str]:
        return self.mark.read_text().split() if self.mark.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_repair_is_carried_out_once_and_told_as_long_as_it_is_ordered(node: Node) -> None:
    await node.order("reset")
    await node.order("reset")
    node.agent()
    await node.order("reset")
    assert node.marks == ["165"]
    assert len(node.told) == 3
    assert {each.event_id for each in node.told} == {node.told[0].event_id}, "a repeat is harmless"
    assert node.told[0].payload == {"repair_id": "rep_1", "ok": True, "step": "reset"}
    assert node.told[0].sentence.endswith("done: well")


async def test_nothing_is_begun_while_a_run_lives_here(node: Node) -> None:
    node.busy = True
    await node.order("reset")
    assert (node.marks, node.told) == ([], [])
    node.busy = False
    await node.order("reset")
    assert node.marks == ["165"]


@pytest.mark.parametrize(
    ("step", "devices", "sentence"),
    [
        ("fabric", (H100,), "false exited with 1"),
        ("lost", (H100,), "no-such-program could not be started: No such file or directory"),
        ("paint", (H100,), "paint is no step of this agent"),
        ("reset", (), "the order names no device"),
    ],
)
async def test_what_fails_says_why(node: Node, step: str, devices: tuple[Device, ...], sentence: str) -> None:
    await node.order(step, devices=devices)
    [told] = node.told
    assert (told.payload["ok"], told.severity, told.sentence) == (False, "warning", sentence)


async def test_what_hangs_is_killed(node: Node) -> None:
    node.agent(timeout_s=0.2)
    await node.order("hang")
    assert node.told[0].sentence == "sleep 30 did not end within 0.2 s and was killed"


async def test_a_reboot_is_over_when_the_node_is_back(node: Node) -> None:
    await node.order("reboot")
    await node.order("reboot")
    assert (node.marks, node.told) == (["165"], [])
    node.agent(boot_id="next boot")
    await node.order("reboot")
    assert node.marks == ["165"]
    assert [(each.payload["ok"], each.sentence) for each in node.told] == [(True, "the node started anew")]


async def test_a_node_that_did_not_reboot_says_so(node: Node) -> None:
    await node.order("reboot")
    node.agent()
    await node.order("reboot")
    assert node.told[0].sentence == "the node was told to reboot and did not"


async def test_a_broken_record_is_no_reason_to_do_nothing(node: Node) -> None:
    (node.folder / "repairs.json").write_text("{")
    node.agent()
    await node.order("reset")
    assert node.marks == ["165"]


@pytest.mark.parametrize(
    ("step", "device", "argv"),
    [
        ("reset", H100, ("nvidia-smi", "--gpu-reset", "-i", "0000:9b:00.0")),
        ("reset", MI300X, ("amd-smi", "reset", "--gpureset", "--gpu", "5")),
        ("fabric", H100, ("systemctl", "restart", "nvidia-fabricmanager")),
        ("reboot", H100, ("systemctl", "reboot")),
    ],
)
def test_the_commands(step: str, device: Device, argv: Argv) -> None:
    assert COMMANDS[step]([device]) == (argv,)
