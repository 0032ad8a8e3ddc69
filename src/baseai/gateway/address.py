"""An address is what a path at the gateway asks for: a protocol, a service by id or by model name, the replica's path.

Invariant: an address is read from the path alone, and what the replica gets begins with a slash and never names the
service by `/s/…`. Read by `address_of`; nobody changes it.
"""

from typing import Literal, NamedTuple
from urllib.parse import quote, unquote_to_bytes

Kind = Literal["openai", "oip", "json", "raw"]


class Address(NamedTuple):
    """What one path asks for. Neither id nor model: the model stands in the body (`openai`)."""

    kind: Kind
    service_id: str | None
    model: str | None  # percent-decoded
    path: bytes  # as the replica gets it, still encoded, without the query

    def of_model(self, name: str) -> bytes:
        """The replica's path where the service is known to it by `name`, whatever the client called it."""
        if self.kind != "oip" or self.model is None or self.model == name:
            return self.path
        rest = self.path[len(MODELS) :].partition(b"/")
        return MODELS + quote(name, safe="").encode() + rest[1] + rest[2]


MODELS = b"/v2/models/"


def address_of(path: bytes) -> Address | None:
    """Read a path without its query; None where nothing of ours is."""
    if path.startswith(b"/v1/"):
        return Address("openai", None, None, path)
    if path.startswith(MODELS):
        name = path[len(MODELS) :].partition(b"/")[0]
        return Address("oip", None, _text(name), path) if name else None
    if path.startswith(b"/json/"):
        name = path[len(b"/json/") :]
        return Address("json", None, _text(name), b"/json") if name and b"/" not in name else None
    if path.startswith(b"/s/"):
        service_id, slash, rest = path[len(b"/s/") :].partition(b"/")
        return _inside(_text(service_id), slash + rest or b"/") if service_id else None
    return None


def _inside(service_id: str, path: bytes) -> Address:
    if path.startswith(b"/v1/"):
        return Address("openai", service_id, None, path)
    if path == b"/v2" or path.startswith(b"/v2/"):
        name = path[len(MODELS) :].partition(b"/")[0] if path.startswith(MODELS) else b""
        return Address("oip", service_id, _text(name) if name else None, path)
    return Address("json" if path == b"/json" else "raw", service_id, None, path)


def _text(part: bytes) -> str:
    return unquote_to_bytes(part).decode("utf-8", "replace")
