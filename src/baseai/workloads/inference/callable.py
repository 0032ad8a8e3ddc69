"""A callable is a function or an object of the tenant's own Python that answers request bodies.

Invariant: whatever it raises is told to the one request and written to the run's log, and ends nothing else; what it
computes in, its threads, belongs to one replica. A ValueError says that the input was wrong.
"""

import asyncio
import importlib.util
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from baseai.workloads.inference.batching import WrongCount
from baseai.workloads.inference.engine import (
    Assignment,
    BadInput,
    Call,
    CallableFailed,
    Described,
    ModelUnusable,
    Together,
    WrongValue,
)
from baseai.workloads.inference.model_source import digest_of

log = logging.getLogger(__name__)

MODULE = "baseai_callable"  # its name in sys.modules, so that what it defines can be pickled and traced
MESSAGE_CHARACTERS = 500


class CallableEngine:
    """Calls a tenant's Python in threads, or on the loop where it is `async`.

    With `gather`, the callable takes a list of bodies and gives a list of answers, one for each in order.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        place, _, self._name = assignment.model.rpartition(":")
        self._path = Path(place)
        self._callable: Callable[[Any], Any] | None = None
        self._is_async = False
        self._threads: ThreadPoolExecutor | None = None
        self._together: Together | None = None
        self._digest = ""

    def load(self) -> None:
        model = self._assignment.model
        if not self._path.is_file():
            fix = "bring it with `files`, and write the path that it has there"
            raise ModelUnusable(model, f"there is no file {self._path.name}", fix)
        found = self._found(_imported(self._path, model))
        try:
            made: Any = found() if inspect.isclass(found) else found
        except Exception as wrong:
            log.exception("making a %s failed", self._name)
            raise ModelUnusable(
                model, f"{self._name}() failed with {_said(wrong)}", "the log says where"
            ) from wrong
        if not callable(made):
            raise ModelUnusable(
                model, f"{self._name} cannot be called", "write a function, or a class with __call__"
            )
        self._callable = made
        own = getattr(made, "__call__", None)  # noqa: B004  an object's own may be `async`
        self._is_async = inspect.iscoroutinefunction(made) or inspect.iscoroutinefunction(own)
        batched = self._assignment.gather is not None
        most = 1 if batched else self._assignment.concurrency
        self._threads = ThreadPoolExecutor(max_workers=most, thread_name_prefix="callable")
        self._digest = digest_of(self._path)

    def _found(self, module: ModuleType) -> Any:
        found: Any = module
        for part in self._name.split("."):
            found = getattr(found, part, None)
            if found is None:
                public = [name for name, each in vars(module).items() if callable(each) and name[0] != "_"]
                own = [
                    name
                    for name in public
                    if getattr(vars(module)[name], "__module__", None) == module.__name__
                ]
                fix = f"it has {', '.join(sorted(own))}" if own else "define it at the file's top level"
                raise ModelUnusable(self._assignment.model, f"{self._path.name} has no {self._name}", fix)
        return found

    def describe(self) -> Described:
        return Described(platform="python", digest=self._digest, facts={"callable": self._name})

    async def close(self) -> None:
        closing = getattr(self._callable, "close", None)
        if callable(closing):
            try:
                await self._run(lambda _: closing(), None)
            except CallableFailed:
                pass  # it has been logged, and nothing is asked any more
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def call(self, body: Any, call: Call) -> Any:
        if self._assignment.gather is None:
            assert self._callable is not None
            return await self._run(self._callable, body)
        if self._together is None:
            self._together = self._assignment.gather(self._batch, lambda body: 1)
        try:
            return await self._together(body)
        except WrongCount as wrong:
            raise CallableFailed("WrongCount", str(wrong)) from wrong

    async def _batch(self, bodies: Sequence[Any]) -> Sequence[Any]:
        assert self._callable is not None
        answers = await self._run(self._callable, list(bodies))
        if hasattr(answers, "tolist"):
            answers = answers.tolist()  # an array has a row for each
        if not isinstance(answers, (list, tuple)):
            raise WrongCount(len(bodies), None)
        return answers

    async def _run(self, function: Callable[[Any], Any], argument: Any) -> Any:
        try:
            if self._is_async and function is self._callable:
                return await function(argument)
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, _without_exit, function, argument)
            return await answer if isinstance(answer, Awaitable) else answer
        except (BadInput, CallableFailed):
            raise
        except ValueError as wrong:
            raise WrongValue(
                str(wrong)[:MESSAGE_CHARACTERS] or "the callable does not take this value"
            ) from wrong
        except (Exception, SystemExit, KeyboardInterrupt) as wrong:
            raise CallableFailed(type(wrong).__name__, str(wrong)[:MESSAGE_CHARACTERS]) from wrong


def _without_exit(function: Callable[[Any], Any], argument: Any) -> Any:
    """A wish to end the process, which would end the replica, is one more failure of the callable."""
    try:
        return function(argument)
    except (SystemExit, KeyboardInterrupt) as wrong:
        raise CallableFailed(type(wrong).__name__, str(wrong)) from wrong


def _imported(path: Path, model: str) -> ModuleType:
    """The file as a module; what lies beside it can be imported by it. Raises ModelUnusable."""
    folder = str(path.parent.absolute())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as missing:
        log.exception("importing %s failed", path.name)
        fix = "bring it with `files`, or have the node's operator install it"
        raise ModelUnusable(
            model, f"{path.name} imports {missing.name}, which is not there", fix
        ) from missing
    except Exception as wrong:
        log.exception("importing %s failed", path.name)
        raise ModelUnusable(
            model, f"importing {path.name} failed with {_said(wrong)}", "the log says where"
        ) from wrong
    return module


def _said(wrong: Exception) -> str:
    message = str(wrong)[:MESSAGE_CHARACTERS]
    return f"{type(wrong).__name__}: {message}" if message else type(wrong).__name__
