"""An outcome is how an attempt's processes ended, in a reason and in a sentence a person can act on.

Invariant: the outcome follows from what was observed alone; who asked for the stop is written down before the
signal is sent, so that an adopting agent comes to the same outcome.
"""

import signal
from dataclasses import dataclass
from typing import Literal

from baseai.workloads.reason import Reason

SPEC_WRONG_CODE = 64
STOPPED_CODE = 143
LINE_CHARACTERS = 300
FINISHING = ("train", "burn_in")  # kinds whose program is ours and comes to an end by itself
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Why this node ended the attempt, as written down before it did."""

    reason: Reason
    sentence: str


def outcome_of(
    exit_code: int | None,
    *,
    kind: Literal["task", "train", "service", "burn_in"],
    asked: Asked | None,
    last_line: str | None,
) -> Outcome:
    """exit_code: negative when a signal ended it, None when nobody saw the end (its shim was killed too).

    A run of a program of ours that ends with 0 has finished even when it was asked to stop a moment before; of a
    task or a service, 0 after a stop says only that it stopped well. A service never finishes by itself.
    """
    if asked is not None and not (exit_code == 0 and kind in FINISHING):
        ending = (
            ""
            if exit_code in (0, STOPPED_CODE, -signal.SIGTERM, -signal.SIGKILL)
            else f" (exited with {exit_code})"
        )
        return Outcome(
            reason=asked.reason, sentence=asked.sentence + (ending if exit_code is not None else "")
        )
    if exit_code is None:
        return Outcome(reason=Reason.PROCESS_LOST, sentence="its processes vanished without a recorded end")
    if kind == "service" and exit_code in (0, STOPPED_CODE):
        return Outcome(reason=Reason.PROCESS_LOST, sentence="was asked to stop from outside")
    if exit_code == 0:
        return Outcome(reason=Reason.FINISHED, sentence="finished")
    line = f"; last line: {last_line[:LINE_CHARACTERS]}" if last_line else ""
    if kind != "task" and exit_code == SPEC_WRONG_CODE:
        sentence = last_line[:LINE_CHARACTERS] if last_line else f"the spec of this {kind} is wrong"
        return Outcome(reason=Reason.SPEC_WRONG, sentence=sentence)
    if -exit_code in _FROM_OUTSIDE:
        name = signal.Signals(-exit_code).name
        return Outcome(reason=Reason.PROCESS_LOST, sentence=f"was ended by {name} from outside{line}")
    if exit_code == 128 + signal.SIGKILL:
        return Outcome(
            reason=Reason.WORKER_LOST, sentence=f"one of its processes was killed from outside{line}"
        )
    if exit_code < 0:
        return Outcome(reason=Reason.COMMAND_FAILED, sentence=f"ended by {_signal_name(-exit_code)}{line}")
    return Outcome(reason=Reason.COMMAND_FAILED, sentence=f"exited with {exit_code}{line}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def out_of_memory(*, used_mib: int, limit_mib: int, largest: str | None) -> Asked:
    """Why a run was ended that used more memory than its lease gives it."""
    who = f"; the largest process was {largest}" if largest else ""
    sentence = f"used {used_mib:,} MiB of memory where its limit is {limit_mib:,} MiB{who}"
    return Asked(reason=Reason.OUT_OF_MEMORY, sentence=sentence + "; ask for more in resources.memory")
