"""A platform on loopback, and a terminal that reaches it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from typer.testing import CliRunner

from baseai.catalog.catalog import load_catalog
from baseai.cli.app import build_app
from tests.cli.loopback import KEY, Loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str


class Baseai(Protocol):
    """Types a command and gives what it left behind."""

    def __call__(
        self, *words: str, stdin: str | None = None, environ: dict[str, str] | None = None
    ) -> Ended: ...


@pytest.fixture(scope="session")
def loopback() -> Iterator[Loopback]:
    one = Loopback()
    yield one
    one.stop()


@pytest.fixture
def platform(loopback: Loopback) -> Loopback:
    """The platform, up, with a new truth."""
    loopback.state.__init__()  # type: ignore[misc]
    if not loopback.is_up:
        loopback.start()
    return loopback


@pytest.fixture
def baseai(platform: Loopback, tmp_path: Path) -> Baseai:
    """The real app in this process, against the loopback platform unless `environ` says otherwise."""
    here = {"BASEAI_URL": platform.url, "BASEAI_KEY": KEY, "HOME": str(tmp_path)}

    def typed(*words: str, stdin: str | None = None, environ: dict[str, str] | None = None) -> Ended:
        app = build_app({}, catalog=load_catalog, environ=here if environ is None else environ)
        result = CliRunner().invoke(app, list(words), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Ended(status=result.exit_code, out=result.stdout, err=result.stderr)

    return typed
