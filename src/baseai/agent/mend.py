"""Mending is carrying out, on this node, a repair that the platform ordered: once, by a command from a short list.

Invariant: nothing runs that does not stand in COMMANDS; nothing is begun while a run lives on the node; each order is
begun at most once, for it is written down before, and what came of it is told however often the agent starts anew.
Outside things touched: the node folder, and the commands.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseai.agent.folder import write_whole
from baseai.api.schemas import Device, RepairOrder, Witness
from baseai.ground.clock import now_utc
from baseai.ground.identity import derived

log = logging.getLogger(__name__)

TIMEOUT_S = 300.0
SAID_CHARACTERS = 300
KEPT = 100  # orders remembered; an older one is settled on the server for long

Argv = tuple[str, ...]


def _reset(devices: Sequence[Device]) -> tuple[Argv, ...]:
    return tuple(
        ("amd-smi", "reset", "--gpureset", "--gpu", str(device.index))
        if device.model.startswith("MI")
        else ("nvidia-smi", "--gpu-reset", "-i", device.pci or device.uuid or str(device.index))
        for device in devices
    )


COMMANDS: Mapping[str, Callable[[Sequence[Device]], tuple[Argv, ...]]] = {
    "fabric": lambda devices: (("systemctl", "restart", "nvidia-fabricmanager"),),
    "reset": _reset,
    "reboot": lambda devices: (("systemctl", "reboot"),),
}
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "fabric": ("systemctl",),
    "reset": ("nvidia-smi", "amd-smi"),
    "reboot": ("systemctl",),
}


def steps_here() -> tuple[str, ...]:
    """The steps for which this node has a program."""
    return tuple(step for step, programs in PROGRAMS.items() if any(shutil.which(one) for one in programs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command came to."""

    ok: bool
    sentence: str


class Mending:
    """The repairs of one node. `tell` keeps a witness until the platform has it."""

    def __init__(
        self,
        record: Path,
        *,
        boot_id: str,
        tell: Callable[[Witness], None],
        commands: Mapping[str, Callable[[Sequence[Device]], tuple[Argv, ...]]] = COMMANDS,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._record = record
        self._boot_id = boot_id
        self._tell = tell
        self._commands = commands
        self._timeout_s = timeout_s
        self._known: dict[str, dict[str, Any]] = self._read()
        self._begun: set[str] = set()  # by this agent: what it told to reboot goes down in a moment
        self._at_work = asyncio.Lock()

    async def carry_out(self, orders: Sequence[RepairOrder], *, busy: Callable[[], bool]) -> None:
        """Do what is ordered and was not begun; tell again what is still ordered although it was done."""
        async with self._at_work:
            for order in orders:
                known = self._known.get(order.repair_id)
                if known is None:
                    if busy():
                        log.warning("repair %s waits: a run still lives here", order.repair_id)
                        continue
                    await self._do(order)
                elif "ok" in known:
                    self._say(order.repair_id, known)
                elif order.repair_id not in self._begun:
                    self._end(order.repair_id, _after_restart(known, self._boot_id))

    async def _do(self, order: RepairOrder) -> None:
        self._begun.add(order.repair_id)
        self._known[order.repair_id] = {"step": order.step, "boot_id": self._boot_id}
        self._write()  # before anything is touched: a reboot leaves no later moment
        make = self._commands.get(order.step)
        if make is None:
            self._end(order.repair_id, Ended(ok=False, sentence=f"{order.step} is no step of this agent"))
            return
        lines = make(order.devices)
        if not lines:
            self._end(order.repair_id, Ended(ok=False, sentence="the order names no device"))
            return
        said = []
        for argv in lines:
            log.warning("repair %s: %s", order.repair_id, " ".join(argv))
            ended = await _run(argv, self._timeout_s)
            said.append(ended.sentence)
            if not ended.ok:
                self._end(order.repair_id, Ended(ok=False, sentence="; ".join(said)))
                return
        if order.step != "reboot":  # that one is over when the node is back
            self._end(order.repair_id, Ended(ok=True, sentence="; ".join(said)))

    def _end(self, repair_id: str, ended: Ended) -> None:
        self._known[repair_id] |= {"ok": ended.ok, "sentence": ended.sentence, "at": now_utc().isoformat()}
        self._write()
        self._say(repair_id, self._known[repair_id])

    def _say(self, repair_id: str, known: Mapping[str, Any]) -> None:
        self._tell(
            Witness.model_validate(
                {
                    "event_id": derived("wit", repair_id),
                    "at": known["at"],
                    "kind": "repair",
                    "severity": "info" if known["ok"] else "warning",
                    "sentence": known["sentence"],
                    "payload": {"repair_id": repair_id, "ok": known["ok"], "step": known["step"]},
                }
            )
        )

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._record.read_text())
            return {str(key): dict(value) for key, value in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as wrong:
            log.warning("the record of repairs %s cannot be read: %s", self._record, wrong)
            return {}

    def _write(self) -> None:
        kept = dict(list(self._known.items())[-KEPT:])
        write_whole(self._record, json.dumps(kept))


def _after_restart(known: Mapping[str, Any], boot_id: str) -> Ended:
    """What to make of an order that was begun and of whose end nothing is known."""
    if known["step"] == "reboot":
        if known["boot_id"] != boot_id:
            return Ended(ok=True, sentence="the node started anew")
        return Ended(ok=False, sentence="the node was told to reboot and did not")
    return Ended(ok=False, sentence="the agent ended while it was carried out: nobody knows how it ended")


async def _run(argv: Argv, timeout_s: float) -> Ended:
    """One command to its end, or to its time's end."""
    name = " ".join(argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C"},
        )
    except OSError as wrong:
        return Ended(ok=False, sentence=f"{name} could not be started: {wrong.strerror or wrong}")
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return Ended(ok=False, sentence=f"{name} did not end within {timeout_s:g} s and was killed")
    last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
    line = f": {last[0][:SAID_CHARACTERS]}" if last else ""
    if process.returncode:
        return Ended(ok=False, sentence=f"{name} exited with {process.returncode}{line}")
    return Ended(ok=True, sentence=f"{name} done{line}")
