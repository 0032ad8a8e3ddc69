"""The model of the package magika behind uvicorn and nothing else: what serving it costs at least, in one process.

It speaks the part of the Open Inference Protocol that the bench asks, checks nothing, and computes on the loop, as one
core has nothing to gain from a thread.

    python -m bench.serving.peers.plain_onnx PORT
"""

import importlib.util
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.serving.front import MODEL, Front, Setup, free_ports, start, wait_ready
from bench.serving.open_loop import ROOT

FILE = "models/standard_v3_3/model.onnx"


def front(setup: Setup) -> Front:
    [port] = free_ports(1)
    log = setup.folder / "log"
    process = start(
        [sys.executable, "-m", "bench.serving.peers.plain_onnx", str(port)],
        log=log,
        environment={"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    wait_ready(f"http://127.0.0.1:{port}/", process, log)
    return Front(
        name="uvicorn + onnxruntime", port=port, process=process, path=f"/v2/models/{MODEL}/infer", log=log
    )


def main() -> None:
    import numpy as np
    import onnxruntime
    import uvicorn

    found = importlib.util.find_spec("magika")
    assert found is not None
    assert found.origin is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(Path(found.origin).parent / FILE), options)
    [output] = [each.name for each in session.get_outputs()]

    async def app(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        told: dict[str, Any] = {}
        if scope["method"] == "POST":
            [given] = json.loads(body)["inputs"]
            array = np.array(given["data"], dtype=np.int32).reshape(given["shape"])
            [made] = session.run([output], {given["name"]: array})
            told = {
                "model_name": MODEL,
                "outputs": [
                    {
                        "name": output,
                        "datatype": "FP32",
                        "shape": list(made.shape),
                        "data": made.ravel().tolist(),
                    }
                ],
            }
        answer = json.dumps(told).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        log_level="error",
        access_log=False,
        lifespan="off",
        loop="uvloop",
        ws="none",
    )


if __name__ == "__main__":
    main()
