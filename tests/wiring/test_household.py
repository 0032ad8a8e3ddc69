"""A household is held by one, keeps its keys to itself, and says what is wrong with it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from baseai.wiring.household import FolderUnusable, HeldAlready, Household


@pytest.fixture
def household(tmp_path: Path) -> Household:
    made = Household(data=tmp_path / "data")
    made.make()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_once_and_for_their_owner_only(household: Household) -> None:
    assert household.key("pepper") == household.key("pepper") != household.key("master")
    assert household.text("operator", "bai").startswith("bai_")
    assert household.text("operator", "bai") == household.text("operator", "bai")
    assert {mode(path) for path in (household.data / "keys").iterdir()} == {0o600}
    assert mode(household.data / "keys") == 0o700
    assert not mode(household.data) & 0o066, "others may pass through at most"


def test_of_processes_that_want_a_key_at_once_all_get_the_same(household: Household) -> None:
    program = (
        "import sys; from pathlib import Path; from baseai.wiring.household import Household;"
        "household = Household(data=Path(sys.argv[1])); print('here', flush=True); sys.stdin.readline();"
        "print(*[household.key(f'key-{number}').hex() for number in range(200)])"
    )
    argv = [sys.executable, "-c", program, str(household.data)]
    asking = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert len({process.communicate(timeout=30)[0] for process in asking}) == 1
    assert sorted(path.name for path in (household.data / "keys").iterdir()) == sorted(
        f"key-{number}" for number in range(200)
    )


def test_one_holds_the_folder_at_a_time(household: Household) -> None:
    assert not household.is_held()
    with household.hold():
        assert household.is_held()
        with pytest.raises(HeldAlready, match=rf"already \(pid {os.getpid()}\)"):
            household.hold()
    assert not household.is_held()


def test_a_killed_holder_holds_no_more(household: Household) -> None:
    program = (
        "import sys, time; from pathlib import Path; from baseai.wiring.household import Household;"
        "held = Household(data=Path(sys.argv[1])).hold(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(household.data)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        assert household.is_held()
        assert household.pid() == holder.pid
        holder.kill()
        holder.wait()
    assert not household.is_held()
    household.hold().close()


def test_to_ask_makes_no_folder_and_takes_no_lock(tmp_path: Path) -> None:
    absent = Household(data=tmp_path / "none")
    assert (absent.is_held(), absent.pid()) == (False, None)
    assert not absent.data.exists()


def test_a_damaged_lock_tells_no_pid(household: Household) -> None:
    (household.data / "platform.lock").write_text("what")
    assert household.pid() is None
    household.hold().close()
    assert household.pid() == os.getpid()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderUnusable, match="cannot be used: Not a directory"):
        Household(data=tmp_path / "file" / "data").make()


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_record_reads_as_none(household: Household, text: str) -> None:
    household.running.write_text(text)
    assert household.read(household.running) == {}
