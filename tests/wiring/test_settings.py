"""What `baseai up` takes, and what it refuses to run with."""

from pathlib import Path

import pytest

from baseai.ground.fault import Refused
from baseai.settings import PlatformSettings, checked, data_folder, refuse_unknown, runtime_folder
from baseai.truth.embedded import SOCKET_BYTES_MAX


def settings(tmp_path: Path, **said: object) -> PlatformSettings:
    (tmp_path / "cert").write_text("")
    return PlatformSettings(data=tmp_path, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_certificate(tmp_path: Path, listen: str) -> None:
    assert checked(settings(tmp_path, listen=listen)).scheme == "http"


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.168.1.7", "example.org", "127.evil.example", ""])
def test_beyond_this_machine_it_does(tmp_path: Path, listen: str) -> None:
    with pytest.raises(Refused, match="only with --tls-cert and --tls-key"):
        checked(settings(tmp_path, listen=listen))
    cert = tmp_path / "cert"
    assert checked(settings(tmp_path, listen=listen, tls_cert=cert, tls_key=cert)).scheme == "https"


def test_certificate_and_key_go_together_and_are_there(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="go together"):
        checked(settings(tmp_path, tls_cert=tmp_path / "cert"))
    with pytest.raises(Refused, match="there is no file"):
        checked(settings(tmp_path, tls_cert=tmp_path / "cert", tls_key=tmp_path / "none"))


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_is_one(tmp_path: Path, port: int) -> None:
    with pytest.raises(Refused, match=f"{port} is not a port"):
        checked(settings(tmp_path, port=port))


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"),
    ],
)  # fmt: skip
def test_the_address_is_one_that_answers(tmp_path: Path, listen: str, url: str) -> None:
    assert PlatformSettings(data=tmp_path, listen=listen, port=80).url == url


def test_an_unknown_variable_is_refused_with_the_nearest_known() -> None:
    refuse_unknown({"BASEAI_DATA": "x", "PATH": "y"})
    with pytest.raises(Refused, match="BASEAI_DTA is not a setting; did you mean BASEAI_DATA"):
        refuse_unknown({"BASEAI_DTA": "x"})
    refuse_unknown({"BASEAI_ATTEMPT": "1", "BASEAI_RUN_ID": "run_1"})  # a command within a run


def test_the_data_folder_is_the_one_named(tmp_path: Path) -> None:
    assert data_folder(tmp_path, {"BASEAI_DATA": "/elsewhere"}) == tmp_path
    assert data_folder(None, {"BASEAI_DATA": "/elsewhere"}) == Path("/elsewhere")


def test_sockets_lie_in_a_short_folder_of_their_own(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 200)
    first, second = runtime_folder(deep, {}), runtime_folder(deep / "y", {})
    assert first != second
    assert len(str(first / ".s.PGSQL.5432")) <= SOCKET_BYTES_MAX


def test_links_name_the_public_address_where_there_is_one(tmp_path: Path) -> None:
    assert settings(tmp_path, port=7).shown_url == "http://127.0.0.1:7"
    named = checked(settings(tmp_path, port=7, public_url="https://cloud.example/"))
    assert (named.shown_url, named.url) == ("https://cloud.example", "http://127.0.0.1:7")
    with pytest.raises(Refused, match="write it like https"):
        checked(settings(tmp_path, public_url="cloud.example"))


def test_a_shared_cache_is_named_by_its_address_which_nobody_is_shown(tmp_path: Path) -> None:
    url = "redis://:secret@cache.example:6379/0"
    assert checked(settings(tmp_path, shared_cache=url)).shared_cache == url
    with pytest.raises(Refused, match="write it like redis://") as told:
        checked(settings(tmp_path, shared_cache="http://:secret@cache.example"))
    assert "secret" not in str(told.value)
