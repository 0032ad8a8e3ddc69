"""A connection says where the platform answers and with which key.

Invariant: a key is sent in the clear to loopback only, and a recorded key only to the address it was recorded for.
Options win over the environment, the environment over the data folder; `baseai up` alone writes the record.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from baseai.ground.fault import Fault, Refused

RECORD = "connect.json"  # {"url", "key", "ca_file"} in the data folder, mode 600
ROOT_FOLDER = Path("/var/lib/baseai")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An address and a key that fit together."""

    url: str  # without a slash at the end
    key: str = field(repr=False)
    ca_file: Path | None = None  # whom to trust beside the system's authorities

    @property
    def loopback(self) -> bool:
        return is_loopback(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was said on the command line; None where nothing was said."""

    url: str | None = None
    key: str | None = None
    data: Path | None = None
    ca_file: Path | None = None


class NoRecord(Fault):
    """The data folder names no platform."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"no platform is recorded in {self.folder}; start one with `baseai up`, or name one with --url and --key"


def is_loopback(url: str) -> bool:
    """Whether the address cannot leave this machine."""
    name = urlsplit(url).hostname or ""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def data_folder(asked: Path | None, environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Where a platform of this machine keeps its state, and the record of how to reach it."""
    if asked is not None:
        return asked.expanduser()
    if named := environ.get("BASEAI_DATA"):
        return Path(named).expanduser()
    return ROOT_FOLDER if is_root else Path(environ.get("HOME") or Path.home()) / ".baseai"


def parse_record(text: str, *, where: str) -> Connection:
    """The record that `baseai up` wrote. Raises Refused when it is not one."""
    try:
        entries = json.loads(text)
        url, key, ca_file = entries["url"], entries["key"], entries.get("ca_file")
        if not (isinstance(url, str) and isinstance(key, str)):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError) as wrong:
        raise Refused(f"{where} is damaged; `baseai up` writes it anew") from wrong
    return Connection(url=url.rstrip("/"), key=key, ca_file=Path(ca_file) if ca_file else None)


def read_record(folder: Path) -> Connection | None:
    """The record in a data folder, or None where there is none. Raises Refused when it may not be read."""
    path = folder / RECORD
    try:
        return parse_record(path.read_text(encoding="utf-8"), where=str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as wrong:
        raise Refused(
            f"{path} may be read by its owner only; run as that user or give --url and --key"
        ) from wrong


def connection_of(
    asked: Asked, environ: Mapping[str, str], recorded: Connection | None, *, folder: Path
) -> Connection:
    """Put together what was said, what the environment holds and what the data folder records.

    A data folder named by option hides the environment's address and key: the nearest word wins.
    Raises NoRecord when nothing names a platform, Refused when a part is missing or would be unsafe.
    """
    surroundings = {} if asked.data is not None else environ
    url = asked.url or surroundings.get("BASEAI_URL") or (recorded.url if recorded else None)
    if url is None:
        raise NoRecord(str(folder))
    url = url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Refused(f"{url!r} is not an address; write it like https://baseai.example:8443")
    same = recorded if recorded and recorded.url == url else None
    key = asked.key or surroundings.get("BASEAI_KEY") or (same.key if same else None)
    if not key:
        raise Refused(f"there is no key for {url}; give --key or set BASEAI_KEY")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise Refused(
            "the key holds characters that no key has; copy it again, without quotes or line breaks"
        )
    if urlsplit(url).scheme == "http" and not is_loopback(url):
        raise Refused(f"{url} is not encrypted and would show the key to the network; use https://")
    named_ca = surroundings.get("BASEAI_CA_FILE")
    ca_file = asked.ca_file or (Path(named_ca) if named_ca else None) or (same.ca_file if same else None)
    return Connection(url=url, key=key, ca_file=ca_file)


def find_connection(asked: Asked, environ: Mapping[str, str]) -> Connection:
    """The connection of this call, from options, environment and data folder."""
    folder = data_folder(asked.data, environ, is_root=hasattr(os, "geteuid") and os.geteuid() == 0)
    return connection_of(asked, environ, read_record(folder), folder=folder)
