"""The nearest word wins, and a key goes only where it belongs."""

from pathlib import Path

import pytest

from baseai.cli.connection import Asked, Connection, NoRecord, connection_of, data_folder
from baseai.ground.fault import Refused

FOLDER = Path("/data")
RECORDED = Connection(url="https://10.0.0.1:8443", key="recorded", ca_file=Path("/data/ca.pem"))
LOCAL = Connection(url="http://127.0.0.1:8000", key="recorded")


@pytest.mark.parametrize(
    ("asked", "environ", "recorded", "url", "key"),
    [
        pytest.param(Asked(), {}, LOCAL, LOCAL.url, "recorded", id="the data folder's record"),
        pytest.param(
            Asked(),
            {"BASEAI_URL": "https://a/", "BASEAI_KEY": "k"},
            LOCAL,
            "https://a",
            "k",
            id="the environment hides the record",
        ),
        pytest.param(
            Asked(url="https://b", key="o"),
            {"BASEAI_URL": "https://a", "BASEAI_KEY": "k"},
            LOCAL,
            "https://b",
            "o",
            id="options hide the environment",
        ),
        pytest.param(
            Asked(data=FOLDER),
            {"BASEAI_URL": "https://a", "BASEAI_KEY": "k"},
            LOCAL,
            LOCAL.url,
            "recorded",
            id="a named data folder hides the environment",
        ),
        pytest.param(
            Asked(url=LOCAL.url + "/"),
            {},
            LOCAL,
            LOCAL.url,
            "recorded",
            id="the record's key for its address",
        ),
    ],
)
def test_connection_of(
    asked: Asked, environ: dict[str, str], recorded: Connection | None, url: str, key: str
) -> None:
    found = connection_of(asked, environ, recorded, folder=FOLDER)
    assert (found.url, found.key) == (url, key)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        pytest.param(
            Asked(url="https://else"), "there is no key for https://else", id="the recorded key stays home"
        ),
        pytest.param(Asked(url="http://10.0.0.2", key="k"), "is not encrypted", id="no key in the clear"),
        pytest.param(Asked(url="10.0.0.2:80", key="k"), "is not an address", id="no scheme"),
        pytest.param(Asked(url="https://a", key="k\n"), "copy it again", id="a line break in the key"),
    ],
)
def test_what_is_unsafe_or_missing_is_refused(asked: Asked, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        connection_of(asked, {}, RECORDED, folder=FOLDER)


def test_the_recorded_authority_goes_with_its_address() -> None:
    assert connection_of(Asked(), {}, RECORDED, folder=FOLDER).ca_file == RECORDED.ca_file
    assert connection_of(Asked(url="https://a", key="k"), {}, RECORDED, folder=FOLDER).ca_file is None


def test_without_any_word_there_is_no_platform() -> None:
    with pytest.raises(NoRecord, match="baseai up"):
        connection_of(Asked(), {}, None, folder=FOLDER)


@pytest.mark.parametrize(
    ("asked", "environ", "is_root", "folder"),
    [
        (Path("/x"), {"BASEAI_DATA": "/y"}, True, Path("/x")),
        (None, {"BASEAI_DATA": "/y"}, True, Path("/y")),
        (None, {"HOME": "/people/ana"}, False, Path("/people/ana/.baseai")),
        (None, {"HOME": "/root"}, True, Path("/var/lib/baseai")),
    ],
)
def test_data_folder(asked: Path | None, environ: dict[str, str], is_root: bool, folder: Path) -> None:
    assert data_folder(asked, environ, is_root=is_root) == folder


def test_a_key_is_not_shown() -> None:
    assert "recorded" not in repr(RECORDED)
