"""Secrets: sealed under the master key and bound to their row."""

import pytest

from baseai.ground.fault import Refused
from baseai.tenancy.secret import SecretUnreadable, opened, refuse_unfit, sealed

MASTER, NONCE = b"m" * 32, b"n" * 12


def seal(value: str = "hunter2") -> bytes:
    return sealed(value, master=MASTER, project_id="prj_a", name="TOKEN", nonce=NONCE)


@pytest.mark.parametrize("value", ["hunter2", "", "zwei\nZeilen", "açúcar"])
def test_what_was_sealed_opens_in_its_own_row(value: str) -> None:
    assert opened(seal(value), master=MASTER, project_id="prj_a", name="TOKEN") == value


def test_the_ciphertext_does_not_contain_the_value() -> None:
    assert b"hunter2" not in seal()


@pytest.mark.parametrize(
    ("master", "project_id", "name", "ciphertext"),
    [
        pytest.param(b"x" * 32, "prj_a", "TOKEN", seal(), id="another master key"),
        pytest.param(MASTER, "prj_b", "TOKEN", seal(), id="moved to another project"),
        pytest.param(MASTER, "prj_a", "OTHER", seal(), id="moved to another name"),
        pytest.param(MASTER, "prj_a", "TOKEN", seal()[:-1] + b"\0", id="changed"),
        pytest.param(MASTER, "prj_a", "TOKEN", seal()[:20], id="cut short"),
        pytest.param(MASTER, "prj_a", "TOKEN", b"", id="empty"),
    ],
)
def test_it_opens_nowhere_else(master: bytes, project_id: str, name: str, ciphertext: bytes) -> None:
    with pytest.raises(SecretUnreadable, match=f"the secret {name} was sealed under another master key"):
        opened(ciphertext, master=master, project_id=project_id, name=name)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A" * 129, "Ä"])
def test_a_name_that_no_variable_has_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="is not a name of a secret"):
        refuse_unfit(name, "x")


def test_a_value_that_no_variable_holds_is_refused() -> None:
    refuse_unfit("_OK1", "x" * 65_536)
    with pytest.raises(Refused, match="zero byte"):
        refuse_unfit("A", "a\0b")
    with pytest.raises(Refused, match="larger than 64 KiB"):
        refuse_unfit("A", "x" * 65_537)
