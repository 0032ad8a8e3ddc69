"""How an attempt ended, in a reason and a sentence."""

from typing import Literal

import pytest

from baseai.agent.outcome import Asked, out_of_memory, outcome_of
from baseai.workloads.reason import Reason

Kind = Literal["task", "train", "service", "burn_in"]
STOP = Asked(reason=Reason.PREEMPTED, sentence="asked to stop: preempted")


@pytest.mark.parametrize(
    ("exit_code", "kind", "asked", "reason"),
    [
        pytest.param(0, "task", None, Reason.FINISHED, id="0 is finished"),
        pytest.param(0, "train", STOP, Reason.FINISHED, id="a train run that ends well has finished"),
        pytest.param(0, "burn_in", STOP, Reason.FINISHED, id="a test that was done before it gave way"),
        pytest.param(143, "burn_in", STOP, Reason.PREEMPTED, id="a test that gave way"),
        pytest.param(64, "burn_in", None, Reason.SPEC_WRONG, id="a test that cannot be done there"),
        pytest.param(1, "burn_in", None, Reason.COMMAND_FAILED, id="a test that a device spoilt"),
        pytest.param(0, "task", STOP, Reason.PREEMPTED, id="a task that stops well has stopped"),
        pytest.param(143, "train", STOP, Reason.PREEMPTED, id="stopped as asked"),
        pytest.param(-15, "task", STOP, Reason.PREEMPTED, id="ended by the signal we sent"),
        pytest.param(-9, "task", STOP, Reason.PREEMPTED, id="killed after its grace"),
        pytest.param(-9, "train", None, Reason.PROCESS_LOST, id="killed by somebody else"),
        pytest.param(-15, "task", None, Reason.PROCESS_LOST, id="asked by somebody else"),
        pytest.param(137, "task", None, Reason.WORKER_LOST, id="one of its processes was killed"),
        pytest.param(-6, "task", None, Reason.COMMAND_FAILED, id="it aborted"),
        pytest.param(64, "train", None, Reason.SPEC_WRONG, id="a wrong config of a train run"),
        pytest.param(64, "task", None, Reason.COMMAND_FAILED, id="64 of a task means nothing special"),
        pytest.param(0, "service", STOP, Reason.PREEMPTED, id="a replica that stops well has stopped"),
        pytest.param(0, "service", None, Reason.PROCESS_LOST, id="a replica never ends by itself"),
        pytest.param(143, "service", None, Reason.PROCESS_LOST, id="a replica stopped by somebody else"),
        pytest.param(64, "service", None, Reason.SPEC_WRONG, id="a replica whose model is not there"),
        pytest.param(3, "service", None, Reason.COMMAND_FAILED, id="a replica's command that failed"),
        pytest.param(None, "task", None, Reason.PROCESS_LOST, id="nobody saw the end"),
        pytest.param(None, "task", STOP, Reason.PREEMPTED, id="nobody saw it, but we had asked"),
    ],
)
def test_outcome(exit_code: int | None, kind: Kind, asked: Asked | None, reason: Reason) -> None:
    assert outcome_of(exit_code, kind=kind, asked=asked, last_line="the last words").reason == reason


def test_a_failure_quotes_its_last_line_up_to_300_characters() -> None:
    outcome = outcome_of(3, kind="task", asked=None, last_line="x" * 1000)
    assert outcome.sentence == "exited with 3; last line: " + "x" * 300
    assert outcome_of(3, kind="task", asked=None, last_line=None).sentence == "exited with 3"


def test_memory_is_said_in_numbers() -> None:
    asked = out_of_memory(used_mib=2048, limit_mib=1024, largest="python (process 7)")
    assert asked.sentence == (
        "used 2,048 MiB of memory where its limit is 1,024 MiB; the largest process was python (process 7)"
        "; ask for more in resources.memory"
    )
