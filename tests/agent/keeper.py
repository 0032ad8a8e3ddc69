"""Two processes to kill: a server that keeps what it accepts, and a node that measures numbers and sends them.

python -m tests.agent.keeper server FOLDER PORT    keeps accepted ids in FOLDER/kept, one a line
python -m tests.agent.keeper node FOLDER URL       writes to FOLDER/measured each id once it is safe in its spool
"""

import asyncio
import gzip
import os
import random
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from baseai.agent.carry import Carrier
from baseai.agent.link import Link
from baseai.agent.sample_spool import SampleSpool
from baseai.api.schemas import Kept, Measured, Samples


def append(path: Path, lines: list[str]) -> None:
    with path.open("a") as file:
        file.write("".join(line + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def lines_of(path: Path) -> list[str]:
    """Whole lines only: the last one may be torn."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def serve(folder: Path, port: int) -> None:
    known = set(lines_of(folder / "kept"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            packed = self.headers.get("content-encoding") == "gzip"
            measured = Measured.model_validate_json(gzip.decompress(body) if packed else body)
            ids = [batch.batch_id for batch in measured.batches]
            append(folder / "kept", [each for each in ids if each not in known])
            known.update(ids)
            answer = Kept(accepted=ids).model_dump_json().encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    class Http(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True

    Http(("127.0.0.1", port), Handler).serve_forever()


async def measure(folder: Path, url: str) -> None:
    spool = SampleSpool(folder / "samples", limit_bytes=8 * 1024 * 1024)
    link = Link(url, node_key="key")
    carrier = Carrier(spool=spool, way=link, views=list, chance=random.Random(), backlog_pause_s=0.01)
    carrying = asyncio.create_task(carrier.run())
    number = len(lines_of(folder / "measured")) + 1
    while not (folder / "enough").exists():
        batch = Samples(
            batch_id=f"bat_{number}_{os.getpid()}",
            family="accelerator",
            boot_id="boot",
            keys=[f"S{row}" for row in range(20)],
            ts_ms=[number] * 20,
            values={"temp_c": [float(number)] * 20},
        )
        spool.add([batch])
        append(folder / "measured", [batch.batch_id])
        carrier.wake()
        number += 1
        await asyncio.sleep(0.005)
    while len(spool):  # noqa: ASYNC110 - what empties it runs beside, in another class
        await asyncio.sleep(0.02)
    carrying.cancel()
    await asyncio.gather(carrying, return_exceptions=True)
    await link.close()


if __name__ == "__main__":
    _, role, place, where = sys.argv
    if role == "server":
        serve(Path(place), int(where))
    else:
        asyncio.run(measure(Path(place), where))
