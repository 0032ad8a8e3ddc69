"""The process that a bench starts for Ray Serve: a cluster of its own, one deployment, until it is asked to end.

RAY_ENVIRONMENT/bin/python bench/serving/peers/ray_serve_app.py '{"port": …, "sessions": …, …}'
"""

import asyncio
import json
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

CHUNKS, PACE_S = 50, 0.010
CONCURRENCY = 256  # as ours is given; by default 5, which would hold up a replica that only waits
ECHOED = re.compile(rb"#(\d{8})#")


@serve.deployment(max_ongoing_requests=CONCURRENCY)
class Replica:
    """Answers as `bench/serving/replica.py` does."""

    def __init__(self, answer_bytes: int, wait_ms: float) -> None:
        self.wait_s = wait_ms / 1000
        self.padding = "words " * (max(0, answer_bytes - 330) // 6)

    def told(self, key: str, inner: dict[str, Any]) -> dict[str, Any]:
        finish = None if key == "delta" else "stop"
        return {
            "id": "chatcmpl-mock",
            "object": "chat.completion" if key == "message" else "chat.completion.chunk",
            "created": 1764200000,
            "model": "mock",
            "choices": [{"index": 0, key: inner, "finish_reason": finish}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240},
        }

    async def stream(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        event = b"data: " + json.dumps(self.told("delta", {"content": "word "})).encode() + b"\n\n"
        for _ in range(CHUNKS):
            yield event
            next_s += PACE_S
            await asyncio.sleep(max(0.0, next_s - loop.time()))
        yield b"data: [DONE]\n\n"

    async def __call__(self, request: Request) -> Response:
        if request.method != "POST":
            return Response("ready")
        raw = await request.body()
        body = json.loads(raw)
        if body.get("stream"):
            return StreamingResponse(self.stream(), media_type="text/event-stream")
        if self.wait_s:
            await asyncio.sleep(self.wait_s)
        echo = ECHOED.search(raw)
        content = (echo[1].decode() if echo else "--------") + self.padding
        return JSONResponse(self.told("message", {"role": "assistant", "content": content}))


def counted() -> dict[str, float]:
    """How many replicas there are and how many answer, and when on the monotonic clock that was."""
    [application] = serve.status().applications.values()
    states = application.deployments["Replica"].replica_states
    starting = sum(count for state, count in states.items() if state in ("STARTING", "RUNNING"))
    return {"at_s": time.monotonic(), "alive": starting, "ready": states.get("RUNNING", 0)}


def main() -> None:
    told = json.loads(sys.argv[1])
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    ray.init(
        num_cpus=12,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=told["sessions"],
        object_store_memory=128 << 20,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": told["port"]})
    replica = Replica
    if told["autoscale"]:
        lanes = int(told["autoscale"]["target_ongoing_requests"])
        replica = Replica.options(
            num_replicas=None, max_ongoing_requests=lanes, autoscaling_config=told["autoscale"]
        )
    serve.run(replica.bind(told["answer_bytes"], told["wait_ms"]), route_prefix="/")
    course = Path(told["folder"]) / "course.jsonl"
    while not over.wait(0.2):
        if told["autoscale"]:
            with course.open("a") as file:
                file.write(json.dumps(counted()) + "\n")
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
