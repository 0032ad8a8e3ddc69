"""An agent against the contract's peer: real processes, real signals, real outages."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from baseai.api.schemas import Launch, LeasedDevice, Observation
from tests.agent.peer import AgentProcess, Peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sessions, descriptors and /proc are Linux's")

Join = Callable[..., AgentProcess]
Make = Callable[..., Launch]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def said(peer: Peer, lease_id: str, what: str) -> str:
    """The log of a lease, once it holds `what`."""
    peer.until(lambda: what in peer.log_of(lease_id), f"{what!r} in the log of {lease_id}")
    return peer.log_of(lease_id)


def born_of(agent: AgentProcess) -> dict[str, int]:
    (record,) = agent.folder.glob("runs/*/*/process.json")
    born: dict[str, int] = json.loads(record.read_text())
    return born


def test_a_task_starts_ends_and_is_tidied(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.until(lambda: peer.reports, "the first report")
    wanted_at = time.time()
    peer.want(launch("lease_1", "echo hello", "echo $BASEAI_NODE_RANK of $BASEAI_NODES_NUM"))
    assert peer.started("lease_1").at.timestamp() - wanted_at < 1.0
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.reason) == (0, "finished")
    assert peer.seen_at[exited.event_id] - exited.at.timestamp() < 1.0
    assert said(peer, "lease_1", "1\n") == "hello\n0 of 1\n"
    peer.until(lambda: peer.reports[-1].gone == ["lease_1"], "the lease to be told gone")
    peer.release("lease_1")
    peer.until(lambda: not list(agent.folder.glob("runs/*")), "the folder to be tidied")
    assert agent.send(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("command", "exit_code", "reason", "sentence"),
    [
        pytest.param("echo no such shoe; exit 3", 3, "command_failed", "no such shoe", id="its own failure"),
        pytest.param(
            "false; echo not reached", 1, "command_failed", "exited with 1", id="the first failing command"
        ),
        pytest.param("kill -9 $$", -9, "process_lost", "SIGKILL", id="the command killed from outside"),
        pytest.param(
            "sh -c 'kill -9 $$'; true", 137, "worker_lost", "killed", id="one of its processes killed"
        ),
        pytest.param("kill -SEGV $$", -11, "command_failed", "SIGSEGV", id="a crash is its own doing"),
    ],
)
def test_an_end_has_its_reason(
    peer: Peer, join: Join, launch: Make, command: str, exit_code: int, reason: str, sentence: str
) -> None:
    join()
    peer.want(launch("lease_1", command))
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.reason) == (exit_code, reason)
    assert sentence in (exited.sentence or "")


def test_a_stop_gives_grace_and_then_kills_all_that_was_started(peer: Peer, join: Join, launch: Make) -> None:
    join()
    peer.want(launch("lease_1", "trap 'echo bye; exit 0' TERM", "echo up", "while :; do sleep 0.05; done"))
    deaf = "trap '' TERM; setsid sh -c \"trap '' TERM; echo pid $BASEAI_NOTHING\\$\\$; sleep 60\" & echo up; wait"
    peer.want(launch("lease_2", deaf))
    said(peer, "lease_1", "up")
    orphan = int(said(peer, "lease_2", "pid ").partition("pid ")[2].split()[0])
    peer.stop("lease_1")
    peer.stop("lease_2", reason="preempted", grace_s=0.5)
    polite, stubborn = peer.exited("lease_1"), peer.exited("lease_2")
    assert (polite.exit_code, polite.reason) == (0, "stopped_by_user")
    assert "bye" in said(peer, "lease_1", "bye")
    assert (stubborn.exit_code, stubborn.reason) == (-9, "preempted")
    assert "did not stop within 0.5 s" in (stubborn.sentence or "")
    assert not lives(orphan)


def test_a_killed_agent_leaves_its_run_and_the_next_one_adopts_it(
    peer: Peer, join: Join, launch: Make
) -> None:
    agent = join()
    peer.want(launch("lease_1", "echo one; sleep 2; echo two; exit 5"))
    said(peer, "lease_1", "one")
    first = peer.started("lease_1")
    agent.send(signal.SIGKILL)
    assert lives(born_of(agent)["pid"])
    join(token=None)
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.pid) == (5, first.pid)
    assert said(peer, "lease_1", "two") == "one\ntwo\n"
    assert len(peer.of("lease_1", "started")) == len(peer.of("lease_1", "exited")) == 1


def test_an_end_while_no_agent_lives_is_reported_by_the_next(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "echo one; sleep 0.5; exit 5"))
    peer.want(launch("lease_2", "echo one; sleep 60"))
    said(peer, "lease_1", "one")
    said(peer, "lease_2", "one")
    agent.send(signal.SIGKILL)
    (record,) = agent.folder.glob("runs/run_of_lease_2/1/process.json")
    born = json.loads(record.read_text())
    os.kill(born["shim_pid"], signal.SIGKILL)
    assert dies(born["pid"])  # the command does not outlive its shim
    join(token=None)
    assert peer.exited("lease_1").exit_code == 5
    lost = peer.exited("lease_2")
    assert (lost.exit_code, lost.reason) == (None, "process_lost")
    peer.until(lambda: set(peer.reports[-1].gone) == {"lease_1", "lease_2"}, "both to be told gone")


def test_a_killed_shim_leaks_nothing(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "setsid sh -c 'echo pid $$; sleep 60' & echo up; wait"))
    escaped = int(said(peer, "lease_1", "pid ").partition("pid ")[2].split()[0])
    os.kill(born_of(agent)["shim_pid"], signal.SIGKILL)
    assert peer.exited("lease_1").reason == "process_lost"
    assert not lives(escaped)


def dies(pid: int, within_s: float = 20.0) -> bool:
    """Whether the process is gone by itself in good time."""
    deadline_s = time.monotonic() + within_s
    while lives(pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return not lives(pid)


def test_a_lease_ends_unasked_while_the_server_is_away(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "trap '' TERM; echo up; sleep 60", ends_in_s=8.0))
    said(peer, "lease_1", "up")
    pid = born_of(agent)["pid"]
    peer.close()
    assert dies(pid)
    peer.open()
    exited = peer.exited("lease_1")
    assert exited.reason == "lease_ended"
    assert (exited.at - peer.started("lease_1").at).total_seconds() < 20.0


def test_a_lease_ends_even_when_no_agent_comes_back(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "trap '' TERM; echo up; sleep 60", ends_in_s=8.0))
    said(peer, "lease_1", "up")
    agent.send(signal.SIGKILL)
    pid = born_of(agent)["pid"]
    assert dies(pid)
    join(token=None)
    assert peer.exited("lease_1").reason == "lease_ended"


def test_an_extended_lease_goes_on(peer: Peer, join: Join, launch: Make) -> None:
    join()
    peer.want(launch("lease_1", "echo up; sleep 8.5; echo done", ends_in_s=8.0))
    said(peer, "lease_1", "up")
    peer.want(launch("lease_1", "echo up; sleep 8.5; echo done", ends_in_s=60.0))
    assert peer.exited("lease_1").reason == "finished"


def test_memory_beyond_the_lease_ends_the_run_with_numbers(peer: Peer, join: Join, launch: Make) -> None:
    join()
    program = "import time; kept = bytearray(200 << 20); time.sleep(60)"
    hungry = f"{sys.executable} -S -c '{program}'"
    peer.want(launch("lease_1", hungry, memory_mib=100))
    exited = peer.exited("lease_1")
    assert exited.reason == "out_of_memory"
    assert "limit is 100 MiB" in (exited.sentence or "")


def test_an_outage_loses_and_doubles_nothing(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "for i in $(seq 40); do echo line $i; sleep 0.05; done; exit 4"))
    said(peer, "lease_1", "line 3")
    peer.close()
    time.sleep(0.5)
    agent.send(signal.SIGKILL)  # with the server away, so that only the spool knows
    join(token=None)
    time.sleep(1.0)
    peer.lose_next_answer = True  # taken, but the agent does not hear it: it says it again
    peer.open()
    assert peer.exited("lease_1").exit_code == 4
    lines = said(peer, "lease_1", "line 40\n")
    assert lines == "".join(f"line {number}\n" for number in range(1, 41))
    kinds = [each.kind for each in peer.observations.values()]
    assert kinds == ["started", "exited"]


def test_progress_arrives_once_and_before_the_end(peer: Peer, join: Join, launch: Make) -> None:
    """A task cannot speak of progress, so a training launcher of our own stands in the path."""
    agent = join(train_module="tests.agent.trainer")
    peer.want(launch("lease_1", kind="train", train={"recipe": "gpt", "config": {"lines": 30}, "workers": 1}))
    peer.until(lambda: len(peer.of("lease_1", "progress")) >= 5, "some progress")
    agent.send(signal.SIGKILL)
    time.sleep(0.3)
    join(token=None, train_module="tests.agent.trainer")
    exited = peer.exited("lease_1")
    assert exited.reason == "finished", exited
    assert [each.payload["step"] for each in peer.of("lease_1", "progress")] == list(range(30))
    assert list(peer.observations.values())[-1].kind == "exited"
    order = json.loads(next(agent.folder.glob("runs/*/1/train/train.json")).read_text())
    assert (order["device"], order["workers"], order["master_port"]) == ("cpu", 1, 29400)


def test_a_training_config_that_is_wrong_is_not_worth_a_retry(peer: Peer, join: Join, launch: Make) -> None:
    join(train_module="tests.agent.trainer")
    peer.want(launch("lease_1", kind="train", train={"config": {"exit": 64}}))
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.reason, exited.sentence) == (64, "spec_wrong", "no such recipe key")


def test_a_secret_is_nowhere_on_disk_nor_in_the_log(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    command = 'echo "begin $TOKEN end"; test ${#TOKEN} = 14; test -z "$OWN_KEY"; echo ok; sleep 1'
    peer.want(launch("lease_1", command, secrets={"TOKEN": "open-sesame-42"}))
    assert said(peer, "lease_1", "ok") == "begin *** end\nok\n"
    found = [path for path in agent.folder.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    assert not found
    assert "sesame" not in agent.log.read_text()
    assert oct((agent.folder / "node.json").stat().st_mode & 0o777) == "0o600"
    assert peer.exited("lease_1").exit_code == 0


def test_files_lie_in_the_work_folder_as_copies(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    script = peer.store(b"#!/bin/sh\necho from a file; echo : changed >> $0\n", "bin/go.sh", mode=0o755)
    data = peer.store(b"some data", "data.txt")
    peer.want(launch("lease_1", "../bin/go.sh", "cat ../data.txt", files=[script, data], working_dir="sub"))
    assert peer.exited("lease_1").exit_code == 0
    assert said(peer, "lease_1", "some data").startswith("from a file")
    assert (agent.folder / "files" / script.digest).read_bytes() == peer.files[script.digest]
    wrong = data.model_copy(update={"digest": "0" * 64})
    peer.files["0" * 64] = b"something else"
    outside = data.model_copy(update={"path": "../../outside"})
    for lease, file, sentence in (("lease_2", wrong, "digest"), ("lease_3", outside, "must stay inside")):
        peer.want(launch(lease, "true", files=[file]))
        declined = peer.declined(lease)
        assert declined.reason == "start_failed"
        assert sentence in (declined.sentence or "")


def test_two_agents_carry_one_run_of_two_nodes(peer: Peer, join: Join, launch: Make) -> None:
    peer.tokens.add("join-twice")
    join("one", address="127.0.0.2")
    peer.until(lambda: len(peer.keys) == 1, "the first node")
    join("two", name="n2", address="127.0.0.3", token="join-twice")
    peer.until(lambda: len(peer.keys) == 2, "the second node")
    both = {"nodes": 2, "addresses": ["127.0.0.2", "127.0.0.3"], "run_id": "run_1"}
    words = 'echo "$BASEAI_NODES_IPS" | tr "\\n" " "; echo rank $NODE_RANK of $NNODES at $MASTER_ADDR:$MASTER_PORT'
    peer.want(launch("lease_1", words, node_rank=0, **both), node_id="node_1")
    peer.want(launch("lease_2", words, node_rank=1, **both), node_id="node_2")
    for rank, lease_id in enumerate(("lease_1", "lease_2")):
        assert peer.exited(lease_id).exit_code == 0
        lines = said(peer, lease_id, "29400\n")
        assert lines == f"127.0.0.2 127.0.0.3 rank {rank} of 2 at 127.0.0.2:29400\n"


def test_the_lease_decides_devices_and_cores(peer: Peer, join: Join, launch: Make) -> None:
    join()
    words = 'echo "cuda=$CUDA_VISIBLE_DEVICES omp=$OMP_NUM_THREADS"'
    slot = [LeasedDevice(accelerator_id="acc_1", model="cpu-slot", index=0)]
    cards = [LeasedDevice(accelerator_id=f"gpu_{index}", model="H100-SXM", index=index) for index in (2, 5)]
    affinity = f'{sys.executable} -S -c "import os; print(len(os.sched_getaffinity(0)))"'
    peer.want(launch("lease_1", words, affinity, devices=slot))
    peer.want(launch("lease_2", words, devices=cards, env={"CUDA_VISIBLE_DEVICES": "all of them"}))
    assert peer.exited("lease_1").exit_code == 0
    assert said(peer, "lease_1", "\n1\n").splitlines() == ["cuda= omp=1", "1"]
    assert said(peer, "lease_2", "omp").startswith("cuda=2,5 ")


def test_a_node_that_goes_down_stops_its_runs_first(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "trap 'echo saved; exit 143' TERM; echo up; while :; do sleep 0.05; done"))
    said(peer, "lease_1", "up")
    assert agent.send(signal.SIGTERM) == 0
    exited = peer.exited("lease_1")
    assert (exited.exit_code, exited.reason) == (143, "node_shutdown")
    assert "saved" in peer.log_of("lease_1")


def test_an_agent_that_only_leaves_keeps_its_runs(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "echo up; sleep 60"))
    said(peer, "lease_1", "up")
    assert agent.send(signal.SIGHUP) == 0
    assert lives(born_of(agent)["pid"])
    join(token=None)
    peer.until(lambda: peer.reports[-1].alive, "the adopted run")
    peer.release("lease_1")  # not wanted any more
    assert peer.exited("lease_1").reason == "grant_stale"


def test_a_second_agent_on_a_folder_is_refused(peer: Peer, join: Join) -> None:
    first = join()
    peer.until(lambda: peer.reports, "the first agent")
    second = join(token=None)
    assert second.process.wait(10) == 1
    assert f"another agent (process {first.process.pid}) already works in" in second.log.read_text()


def test_a_token_works_once_and_a_revoked_key_keeps_runs(peer: Peer, join: Join, launch: Make) -> None:
    agent = join()
    peer.want(launch("lease_1", "echo up; sleep 60"))
    said(peer, "lease_1", "up")
    running = born_of(agent)["pid"]
    late = join("late")
    assert late.process.wait(10) == 1
    assert "this join token was used" in late.log.read_text()
    peer.revoked = True
    peer.want(launch("lease_2", "true"))
    time.sleep(3.0)
    assert lives(running)
    assert agent.log.read_text().count("does not take this node's key") == 1


def test_a_run_that_cannot_start_says_why(peer: Peer, join: Join, launch: Make) -> None:
    join()
    peer.want(launch("lease_1", "true", image="ubuntu"))
    peer.want(launch("lease_2", "true", stop=True, stop_reason="stopped_by_operator"))
    peer.want(launch("lease_3", "true", working_dir="../.."))
    first, second, third = (peer.declined(f"lease_{number}") for number in (1, 2, 3))
    assert (first.reason, second.reason, third.reason) == (
        "start_failed",
        "stopped_by_operator",
        "start_failed",
    )
    assert "no container runtime" in (first.sentence or "")
    peer.until(lambda: set(peer.reports[-1].gone) == {"lease_1", "lease_2", "lease_3"}, "all to be told gone")


def test_runs_can_be_started_as_another_user(peer: Peer, join: Join, launch: Make, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may start runs as another user")
    agent = join(run_user="nobody")
    peer.until(lambda: peer.reports or agent.process.poll() is not None, "the agent to start or refuse")
    if agent.process.poll() is not None:  # pytest's folder is closed to others
        assert "the user nobody cannot reach" in agent.log.read_text()
        return
    peer.want(launch("lease_1", "id -un; touch here $BASEAI_OUTPUT_FOLDER/there"))
    assert said(peer, "lease_1", "\n") == "nobody\n"
    assert peer.exited("lease_1").exit_code == 0


def test_an_idle_agent_hardly_costs_anything(peer: Peer, join: Join) -> None:
    agent = join()
    peer.until(lambda: len(peer.reports) > 1, "the agent to settle")

    def cpu_s() -> float:
        fields = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before_s = cpu_s()
    time.sleep(4.0)
    assert cpu_s() - before_s <= 0.4  # a loop that never rests would take ten times that


def test_a_bounded_log_says_what_it_dropped(peer: Peer, join: Join, launch: Make) -> None:
    """While the server is away, more is written than the node keeps."""
    agent = join(segment_bytes=1000, segments=3)
    peer.want(launch("lease_1", "echo first; sleep 1; seq 1 2000; echo last; sleep 60"))
    said(peer, "lease_1", "first")
    peer.close()
    time.sleep(1.5)
    assert sum(path.stat().st_size for path in agent.folder.glob("runs/*/*/stream/*")) <= 3000
    peer.open()
    lines = said(peer, "lease_1", "last\n")
    assert lines.startswith("first\n")
    assert "bytes of output were dropped here" in lines
    assert lines.endswith("1999\n2000\nlast\n")
    assert peer.until(lambda: peer.of("lease_1", "log_truncated"), "the word of it")


def test_observations_of_one_lease_are_of_its_attempt(peer: Peer, join: Join, launch: Make) -> None:
    join()
    peer.want(launch("lease_1", "exit 1", run_id="run_1", attempt_no=1))
    peer.exited("lease_1")
    peer.release("lease_1")
    peer.want(launch("lease_2", "exit 0", run_id="run_1", attempt_no=2))
    peer.exited("lease_2")

    def attempts(lease_id: str) -> set[int]:
        mine: list[Observation] = [each for each in peer.observations.values() if each.lease_id == lease_id]
        return {each.attempt_no for each in mine}

    assert (attempts("lease_1"), attempts("lease_2")) == ({1}, {2})
