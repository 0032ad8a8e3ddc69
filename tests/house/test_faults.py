"""Every fault survives pickling with its facts and its sentence: it crosses processes on its way to a door."""

import ast
import dataclasses
import enum
import importlib
import pickle
import types
import typing
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from baseai.ground.fault import Fault
from tests.house.source import Module, modules

PLAIN: Mapping[type, object] = {
    str: "word",
    bool: True,
    int: 7,
    float: 1.5,
    bytes: b"\x07",
    Decimal: Decimal("1.25"),
    datetime: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    date: date(2026, 1, 2),
    Path: Path("folder") / "file",
    object: "anything",
}


def example(annotation: typing.Any) -> typing.Any:
    """Some value of the annotated type. Raises NotImplementedError for a type nobody has needed so far."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    if annotation is typing.Any:
        return "anything"
    if isinstance(annotation, typing.NewType):
        return example(annotation.__supertype__)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return example(next(arg for arg in args if arg is not type(None)))
    if origin is typing.Literal:
        return args[0]
    if origin is tuple:
        return tuple(example(arg) for arg in args if arg is not Ellipsis)
    if origin is not None and issubclass(origin, Mapping):
        return {example(args[0]): example(args[1])}
    if origin is not None and issubclass(origin, Collection):
        return (
            (example(args[0]),)
            if not issubclass(origin, (list, set, frozenset))
            else origin([example(args[0])])
        )
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return next(iter(annotation))
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        needed = [field for field in dataclasses.fields(annotation) if field.default is dataclasses.MISSING]
        return annotation(**{field.name: example(hints[field.name]) for field in needed})
    raise NotImplementedError(f"no example of {annotation!r} yet")


def an(kind: type[Fault]) -> Fault:
    """One fault of this kind, with an example of each of its facts."""
    if kind.__init__ is Fault.__init__:
        return kind()
    hints = typing.get_type_hints(kind.__init__)
    return kind(*(example(hint) for name, hint in hints.items() if name != "return"))


def survives(fault: Fault) -> bool:
    try:
        twin = pickle.loads(pickle.dumps(fault))
    except TypeError:  # its __init__ wants facts that `args` does not hold
        return False
    return type(twin) is type(fault) and (twin.args, str(twin), vars(twin)) == (
        fault.args,
        str(fault),
        vars(fault),
    )


def faults_of(module: Module) -> list[type[Fault]]:
    """The faults born in `module`, which is imported; skips the test where an extra is not installed."""
    name = f"baseai.{module.name}"
    try:
        imported = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("baseai"):
            raise
        pytest.skip(f"{missing.name} is not installed")
    return [
        kind
        for kind in vars(imported).values()
        if isinstance(kind, type) and issubclass(kind, Fault) and kind.__module__ == name
    ]


def defines_a_class_on(module: Module) -> bool:
    """Whether some class of the module names a parent: only such a module can give birth to a fault."""
    return any(isinstance(node, ast.ClassDef) and node.bases for node in ast.walk(module.tree))


CANDIDATES = [module for module in modules() if defines_a_class_on(module)]


@pytest.mark.parametrize("module", CANDIDATES, ids=[module.name for module in CANDIDATES])
def test_faults_survive_pickling_and_speak(module: Module) -> None:
    for kind in faults_of(module):
        fault = an(kind)
        assert survives(fault), f"{kind.__name__} loses a fact on its way"
        assert kind is Fault or str(fault), f"{kind.__name__} says nothing"
        assert kind.__doc__, f"{kind.__name__} does not say what refused"
        assert isinstance(kind.retryable, bool)


class Forgetful(Fault):
    """Keeps a fact from `args`."""

    def __init__(self, name: str, waited_s: float) -> None:
        super().__init__(name)
        self.waited_s = waited_s


def test_a_fault_that_hides_a_fact_is_found() -> None:
    assert not survives(an(Forgetful))
