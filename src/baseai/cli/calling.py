"""Calling is one request through the gateway, as anybody's program would send it, with what came of it.

Invariant: the key goes to an address that is encrypted or on this machine, as everywhere; what the service says goes to
standard output, how it went to standard error.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from baseai.cli.call import OTHERWISE, Call, command, segment
from baseai.cli.column import plain
from baseai.cli.connection import is_loopback
from baseai.cli.http import NoPlatform
from baseai.ground.fault import Refused

if TYPE_CHECKING:
    import httpx

    from baseai.api.schemas import ExampleView, ServiceDetail

JSON, BYTES = "application/json", "application/octet-stream"
TOLD = (("cache-status", "cache"), ("x-baseai-replica", "replica"), ("x-baseai-version", "version"))


def add_calling(service: typer.Typer, environ: Mapping[str, str]) -> None:
    """Register the command."""

    @command(service, "call", example="baseai service call chat --text 'Olá!' --stream", environ=environ)
    def call_service(
        call: Call,
        name: Annotated[
            str, typer.Argument(metavar="SERVICE", help="Name or id of the service.", show_default=False)
        ],
        body: Annotated[
            str | None,
            typer.Argument(
                metavar="[JSON]",
                help="The request; @FILE reads a file, - standard input. A function may be sent any bytes.",
                show_default=False,
            ),
        ] = None,
        text: Annotated[
            str | None,
            typer.Option(
                "--text",
                help="What to say, put into the request as the service takes it.",
                show_default=False,
            ),
        ] = None,
        example: Annotated[
            str | None,
            typer.Option(
                "--as", help="Which kind of request: chat, completion, infer, metadata …", show_default=False
            ),
        ] = None,
        stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    ) -> int:
        """Send one request to a service and print what it answers.

        Without a request of your own the service's own example is sent. How long it took, from which replica it came
        and what the cache did is said on standard error.
        """
        from baseai.api.schemas import ServiceDetail

        detail = call.platform.get(f"/services/{segment(name)}").read(ServiceDetail)
        asked = _example(detail, example)
        return _send(call, asked, *_body(asked, body, text, stream=stream), stream=stream and asked.streams)


def _example(detail: "ServiceDetail", name: str | None) -> "ExampleView":
    known = {each.name: each for each in detail.examples}
    if not known:
        raise Refused("no gateway runs on this platform; start it with `baseai up --gateways 1`")
    if name is not None and name not in known:
        raise Refused(f"--as {name}: {plain(detail.service.name)} answers to {', '.join(known)}")
    posted = next((each for each in detail.examples if each.method == "POST"), detail.examples[0])
    return posted if name is None else known[name]


def _body(
    asked: "ExampleView", said: str | None, text: str | None, *, stream: bool
) -> tuple[bytes | None, str]:
    """What is sent, and its media type. Raises Refused for what the request cannot take."""
    if text is not None and (said is not None or asked.said is None):
        raise Refused(
            "--text is for a request that takes a text and that is not written out: leave one of them out"
        )
    if said is None:
        if asked.body is None:
            return None, JSON
        document: dict[str, Any] = dict(asked.body)
        if text is not None and asked.said is not None:
            document[asked.said] = [{"role": "user", "content": text}] if asked.said == "messages" else text
    else:
        content, where = _read(said)
        try:
            document = json.loads(content)
        except ValueError as wrong:
            if asked.takes_bytes:
                return content, BYTES
            raise Refused(f"{where} is no JSON: {wrong}") from wrong
    if stream and asked.streams and isinstance(document, dict):
        document["stream"] = True
    return json.dumps(document, ensure_ascii=False).encode(), JSON


def _read(said: str) -> tuple[bytes, str]:
    """What was written, and where. Raises Refused for a file that cannot be read."""
    if said == "-":
        return sys.stdin.buffer.read(), "standard input"
    if not said.startswith("@"):
        return said.encode(), "the request"
    where = said[1:]
    try:
        return Path(where).expanduser().read_bytes(), where
    except OSError as wrong:
        raise Refused(f"{where} cannot be read: {wrong.strerror}") from wrong


def _send(call: Call, asked: "ExampleView", body: bytes | None, media_type: str, *, stream: bool) -> int:
    import httpx

    url, connection = asked.url, call.platform.connection
    if urlsplit(url).scheme == "http" and not is_loopback(url):
        raise Refused(f"the gateway at {url} is not encrypted and would show the key to the network")
    headers = {"Authorization": f"Bearer {connection.key}", "User-Agent": "baseai"}
    if body is not None:
        headers["Content-Type"] = media_type
    began = time.monotonic()
    try:
        with (
            call.platform.client_of(url) as client,
            client.stream(asked.method, url, content=body, headers=headers) as reply,
        ):
            first_byte_s = None
            if stream and reply.status_code < 300 and not call.screen.as_json:
                first_byte_s = _print_stream(call, reply, began)
            else:
                _print_whole(call, reply)
            took_s = time.monotonic() - began
    except httpx.TransportError as wrong:
        raise NoPlatform(url, str(wrong) or type(wrong).__name__) from wrong
    facts = [f"{label} {plain(reply.headers[name])}" for name, label in TOLD if name in reply.headers]
    first = "" if first_byte_s is None else f", first words after {first_byte_s * 1000:.1f} ms"
    call.screen.note(", ".join([f"{reply.status_code} in {took_s * 1000:.1f} ms{first}", *facts]))
    return 0 if reply.status_code < 400 else OTHERWISE


def _print_whole(call: Call, reply: "httpx.Response") -> None:
    content = reply.read()
    screen = call.screen
    try:
        document = json.loads(content)
    except ValueError:
        screen.raw(content)
        return
    if screen.as_json:
        screen.document(content.decode("utf-8", "replace"))
        return
    text = spoken_of(document)
    if text is None:
        screen.say(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        screen.say(*(plain(line) for line in text.splitlines()))


def _print_stream(call: Call, reply: "httpx.Response", began: float) -> float | None:
    """Print the words of a stream as they come; when the first one did, in seconds."""
    first: float | None = None
    for line in reply.iter_lines():
        said = line.removeprefix("data:").strip()
        if not line.startswith("data:") or said == "[DONE]":
            continue
        try:
            text = spoken_of(json.loads(said))
        except ValueError:
            continue
        if text:
            first = time.monotonic() - began if first is None else first
            call.screen.raw("\n".join(plain(part) for part in text.split("\n")).encode())
    call.screen.raw(b"\n")
    return first


def spoken_of(document: Any) -> str | None:
    """What a language model said, whole or a piece of it; None where the answer is something else."""
    if isinstance(document, dict) and isinstance(document.get("text_output"), str):
        return str(document["text_output"])
    try:
        choice = document["choices"][0]
    except (KeyError, IndexError, TypeError):
        return None
    for part in (choice.get("message"), choice.get("delta"), choice):
        if isinstance(part, dict):
            text = part.get("content", part.get("text"))
            if isinstance(text, str):
                return text
    return ""
