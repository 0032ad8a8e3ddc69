"""The host of a replica: it brings the model, starts what answers, tells where it listens, and ends it without loss.

`python -m baseai.workloads.inference.host service.json`

Invariant: `ready` is told once, after which requests are answered; told to stop, it ends when the requests under way
have been answered or the grace is over. Exit codes: 0 stopped as asked, 64 it cannot be served as the spec has it, 143
stopped before it was ready, anything else failed; the last line on standard error says why.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from baseai.ground.fault import Fault, Refused
from baseai.workloads import progress
from baseai.workloads.inference import command, ray_app, vllm
from baseai.workloads.inference.batching import gather_of
from baseai.workloads.inference.command import Child, PortTaken, Program
from baseai.workloads.inference.engine import Assignment, Engine, ModelUnusable
from baseai.workloads.inference.model_source import Resolved, resolve
from baseai.workloads.inference.order import Order, taken

ENDED, FAILED, CANNOT, STOPPED = 0, 1, 64, 143
# The engines that compute in this process.
ENGINES: Mapping[str, tuple[str, str]] = {
    "onnx": ("baseai.workloads.inference.engines.onnx", "OnnxEngine"),
    "embeddings": ("baseai.workloads.inference.engines.embeddings", "EmbeddingsEngine"),
    "chat": ("baseai.workloads.inference.engines.chat", "ChatEngine"),
    "callable": ("baseai.workloads.inference.callable", "CallableEngine"),
}
LOOK_S = 0.05
QUIET_S = 0.25  # without a request, before the last connection is closed: one may be on its way
KEEP_ALIVE_S = 75  # longer than gateways keep an idle connection, so that none is closed under a request
SPARE_S = 2.0  # of the grace, for ending itself

Result = TypeVar("Result")


class Stop:
    """The wish to stop, from the first SIGTERM or SIGINT on."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked.set)

    async def asked(self) -> None:
        await self._asked.wait()

    async def or_result(self, work: Awaitable[Result]) -> Result:
        """What `work` gives. Raises StoppedEarly where the wish to stop comes first: nothing was answered yet."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.asked())
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise StoppedEarly
        asked.cancel()
        return task.result()


class StoppedEarly(Exception):
    """Asked to stop before anything was answered."""


class Replica:
    """One attempt of one replica."""

    def __init__(self, order: Order, stop: Stop) -> None:
        self._order = order
        self._stop = stop
        self._began_s = time.monotonic()
        self._host = command.host_to_listen(order.address)
        # Where this machine itself reaches what listens: not by an address that only others know.
        self._inside = order.address if self._host == order.address else "127.0.0.1"

    async def serve(self) -> int:
        order = self._order
        progress.tell(order.attempt_folder, "loading", engine=order.service.engine, model=order.service.model)
        if order.service.engine == "ray":
            return await self._ray()
        if order.service.engine == "vllm":
            vllm.require()  # before a large model is fetched for nothing
        model = await self._stop.or_result(asyncio.to_thread(self._resolved))
        if order.service.engine in ENGINES:
            assert model is not None
            return await self._engine(model)
        port = command.free_port(self._host, order.service.port)
        return await self._command(self._program(model, port), port, model)

    def _resolved(self) -> Resolved | None:
        order = self._order
        if order.service.model is None:
            return None
        return resolve(
            order.service.model,
            work_folder=order.work_folder,
            model_path=order.model_path,
            checkpoints=order.model_checkpoints,
            downloads=order.attempt_folder / "model",
        )

    def _program(self, model: Resolved | None, port: int) -> Program:
        path = None if model is None else model.path
        if self._order.service.engine == "vllm":
            assert path is not None
            return vllm.program_of(self._order, os.environ, host=self._host, port=port, model=path)
        return command.program_of(self._order, host=self._host, port=port, model=path)

    def _tell_ready(self, port: int, model: Resolved | None) -> None:
        order = self._order
        progress.tell(
            order.attempt_folder,
            "ready",
            address=order.address,
            port=port,
            engine=order.service.engine,
            models=[order.service.model_name],
            digest=None if model is None else model.digest,
            bytes=None if model is None else model.size_bytes,
            origin_run_id=order.model_run_id,
            warm_up_s=round(time.monotonic() - self._began_s, 3),
        )

    # ---- an engine of ours

    async def _engine(self, model: Resolved) -> int:
        import uvicorn

        from baseai.workloads.inference.server.app import Terms, asgi_app

        order, service = self._order, self._order.service
        engine = engine_of(order, model)
        await self._stop.or_result(asyncio.to_thread(engine.load))
        listener = command.bound(self._host, None)
        port = int(listener.getsockname()[1])
        terms = Terms(
            model_name=service.model_name,
            version=str(order.version_no),
            aliases=() if order.run_name == service.model_name else (order.run_name,),
            concurrency=service.concurrency,
            most_body_bytes=service.most_body_bytes,
            created_at_s=int(time.time()),
            token=order.token,
        )
        app = asgi_app(engine, terms, facts={"run": order.run_id, "source": service.model})
        config = uvicorn.Config(
            app,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,  # after `_drained`, which waits for the requests
            ws="none",
        )
        server = _server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():  # noqa: ASYNC110  uvicorn has a flag, no event
            await asyncio.sleep(0.01)
        if serving.done():
            serving.result()  # raises what kept it from listening
            raise PortTaken(port, "it was closed")
        self._tell_ready(port, model)
        asked = asyncio.create_task(self._stop.asked())
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        app.draining = True
        await _drained(app, order.stop_grace_s - SPARE_S)
        server.should_exit = True
        await serving
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(engine.close(), SPARE_S)
        print(f"stopped; {app.served} requests were answered", file=sys.stderr, flush=True)
        return ENDED

    # ---- programs that listen by themselves

    async def _command(self, program: Program, port: int, model: Resolved | None) -> int:
        child = await Child.start(program.argv, program.env, self._order.work_folder)
        answers = command.until_ready(self._inside, port, program.ready_path)
        return await self._watched([child], answers, port, model)

    async def _ray(self) -> int:
        """The head first, then where Serve listens, then the application."""
        ray_app.require()
        order = self._order
        port = command.free_port(self._host, None)
        cluster = ray_app.made(order, address=self._inside)
        variables = ray_app.variables_of(order, cluster, os.environ, host=self._host, port=port)
        children: list[Child] = []
        try:
            application = ray_app.application_argv(order, cluster)
            children.append(
                await Child.start(ray_app.head_argv(order, cluster), variables, order.work_folder)
            )
            await self._stop.or_result(_listening(cluster.address, cluster.ports["port"], children[0]))
            proxy = await Child.start(
                ray_app.proxy_argv(cluster, host=self._host, port=port), variables, order.work_folder
            )
            children.append(proxy)
            code = await self._stop.or_result(proxy.ended())
            if code != 0:
                raise ray_app.ClusterFailed("serve start", code)
            children.remove(proxy)
            # On an interrupt `serve run` takes its application down. Serve's proxy goes with it, so requests under way
            # are answered only where the gateway has let them end before, which it does.
            started = await Child.start(application, variables, order.work_folder, ends_on=signal.SIGINT)
            children.append(started)
            answers = ray_app.until_ready(self._inside, port, order.service.ready_path)
            return await self._watched(children, answers, port, None)
        finally:
            for child in reversed(children):
                await child.end(SPARE_S)
            shutil.rmtree(cluster.temp_folder, ignore_errors=True)

    async def _watched(
        self, children: list[Child], answers: Coroutine[Any, Any, None], port: int, model: Resolved | None
    ) -> int:
        """Until it is told to stop, or the first of the children ends; ready when `answers` is over."""
        ends = {asyncio.create_task(child.ended()): child for child in children}
        asked = asyncio.create_task(self._stop.asked())
        ready = asyncio.create_task(answers)
        try:
            await asyncio.wait({*ends, asked, ready}, return_when=asyncio.FIRST_COMPLETED)
            was_ready = ready.done()
            if was_ready:
                ready.result()
                self._tell_ready(port, model)
                await asyncio.wait({*ends, asked}, return_when=asyncio.FIRST_COMPLETED)
            ended = next((task for task in ends if task.done()), None)
            if ended is not None and not asked.done():
                return _failed(ended.result(), was_ready=was_ready)
            for child in reversed(children):
                if not await child.end(max(SPARE_S, self._order.stop_grace_s - SPARE_S)):
                    sentence = "the command did not end within its grace and was killed"
                    print(sentence, file=sys.stderr, flush=True)
            return ENDED if was_ready else STOPPED
        finally:
            for task in (asked, ready, *ends):
                task.cancel()
            for child in reversed(children):
                await child.end(SPARE_S)


def _failed(code: int, *, was_ready: bool) -> int:
    """A command ends when it is told to; whatever it says of itself, another end is a failure."""
    if code in (ENDED, CANNOT, STOPPED):
        before = "" if was_ready else " before it answered"
        print(f"the command ended by itself{before} with {code}; let it run on", file=sys.stderr, flush=True)
        return FAILED
    return code


async def _listening(address: str, port: int, child: Child) -> None:
    """Until something listens there. Raises ClusterFailed where the child ends before."""
    ended = asyncio.create_task(child.ended())
    try:
        while not ended.done():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(address, port)
                writer.close()
                return
            await asyncio.sleep(LOOK_S)
        raise ray_app.ClusterFailed("ray start", ended.result())
    finally:
        ended.cancel()


async def _drained(app: Any, grace_s: float) -> None:
    """Until no request has been under way for a moment, or the grace is over."""
    deadline_s = time.monotonic() + grace_s
    quiet_s, served = time.monotonic(), app.served
    while time.monotonic() < deadline_s:
        if app.under_way or app.served != served:
            quiet_s, served = time.monotonic(), app.served
        elif time.monotonic() - quiet_s >= QUIET_S:
            return
        await asyncio.sleep(LOOK_S)


def engine_of(order: Order, model: Resolved) -> Engine:
    """The service's engine, born and not yet loaded. Imports what it computes with."""
    service = order.service
    module, name = ENGINES[service.engine]
    assignment = Assignment(
        model=model.path,
        model_name=service.model_name,
        digest=model.digest,
        concurrency=service.concurrency,
        threads=order.threads,
        device=order.device,
        gather=None if service.batching is None else gather_of(service.batching),
        most_tokens=service.most_tokens,
    )
    engine: Engine = getattr(importlib.import_module(module), name)(assignment)
    return engine


def _server(config: Any) -> Any:
    """A server of uvicorn that leaves signals to the host."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(config)


def main(arguments: list[str]) -> int:
    """Serve what the file named in the arguments asks for; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m baseai.workloads.inference.host <service.json>", file=sys.stderr)
        return CANNOT
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        return _run(_served(taken(Path(arguments[0]).absolute())))
    except (ModelUnusable, Refused) as refused:
        print(refused, file=sys.stderr)
        return CANNOT
    except ModuleNotFoundError as missing:
        sentence = f"this node lacks the Python package {missing.name}"
        print(f"{sentence}; have its operator install baseai[serve]", file=sys.stderr)
        return CANNOT
    except Fault as fault:
        print(fault, file=sys.stderr)
        return FAILED


async def _served(order: Order) -> int:
    order.attempt_folder.mkdir(parents=True, exist_ok=True)
    try:
        return await Replica(order, Stop()).serve()
    except StoppedEarly:
        print("stopped before it was ready", file=sys.stderr, flush=True)
        os._exit(STOPPED)  # a thread that loads a model cannot be ended, and is not waited for


def _run(main_task: Any) -> int:
    try:
        import uvloop
    except ImportError:
        return int(asyncio.run(main_task))
    return int(uvloop.run(main_task))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of an engine or of a callable that still compute are not waited for
