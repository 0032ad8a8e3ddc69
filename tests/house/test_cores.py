"""No clock, chance, environment, logging or outside world in a core: it can be replayed from its arguments."""

import ast
from collections.abc import Mapping

import pytest

from tests.house.source import Module, imports, module_of, modules

BANNED: Mapping[str, str] = {
    "alembic": "the database belongs to shells",
    "asyncio": "a core does not wait",
    "datetime.date.today": "`now` is an argument",
    "datetime.datetime.now": "`now` is an argument",
    "datetime.datetime.today": "`now` is an argument",
    "datetime.datetime.utcnow": "`now` is an argument",
    "baseai.ground.clock.now_utc": "`now` is an argument",
    "baseai.ground.identity.mint": "new ids are arguments",
    "fastapi": "only doors know HTTP",
    "httpx": "the network belongs to shells",
    "logging": "reasons go out as values and the shell logs them",
    "multiprocessing": "processes belong to shells",
    "numpy.random.default_rng": "a seeded rng is an argument",
    "numpy.random.rand": "a seeded rng is an argument",
    "numpy.random.seed": "a seeded rng is an argument",
    "os.environ": "wiring reads the environment once",
    "os.getenv": "wiring reads the environment once",
    "os.urandom": "chance is an argument",
    "psycopg": "the database belongs to shells",
    "random": "a seeded rng is an argument",
    "secrets": "chance is an argument",
    "socket": "the network belongs to shells",
    "sqlalchemy": "the database belongs to shells",
    "subprocess": "processes belong to shells",
    "threading": "a core does one thing",
    "time": "`now` is an argument",
    "typer": "the terminal is a door",
    "uuid": "new ids are arguments",
}

# May only shrink: (module, name) and why it cannot hold yet.
OFFENDERS: Mapping[tuple[str, str], str] = {}


def reads_of_the_world(module: Module) -> set[str]:
    """The banned names that `module` imports or reaches through what it imports; names for types only are fine."""
    local: dict[str, str] = {}  # the name in this file → the dotted name it stands for
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                local[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            local.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for taken in imports(module):
        found.update(name for name in BANNED if taken.name == name or taken.name.startswith(name + "."))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            dotted = f"{local[first]}.{rest}" if first in local else ""
            if dotted in BANNED:
                found.add(dotted)
    return found


CORES = tuple(module for module in modules() if module.is_core)


@pytest.mark.parametrize("module", CORES, ids=[module.name or "baseai" for module in CORES])
def test_a_core_reads_only_its_arguments(module: Module) -> None:
    assert {
        name: BANNED[name] for name in reads_of_the_world(module) if (module.name, name) not in OFFENDERS
    } == {}


def test_the_list_of_offenders_only_shrinks() -> None:
    still = {(module.name, name) for module in CORES for name in reads_of_the_world(module)}
    assert OFFENDERS.keys() - still == set()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param(
            "import datetime\nx = datetime.datetime.now()", "datetime.datetime.now", id="the long name"
        ),
        pytest.param(
            "from datetime import datetime as d\nx = d.now()", "datetime.datetime.now", id="another name"
        ),
        pytest.param(
            "import numpy as np\nx = np.random.default_rng()", "numpy.random.default_rng", id="numpy"
        ),
        pytest.param("def f():\n    from time import time", "time", id="inside a function"),
        pytest.param("import os\nx = os.environ['HOME']", "os.environ", id="the environment"),
        pytest.param(
            "from baseai.ground.clock import now_utc", "baseai.ground.clock.now_utc", id="our own clock"
        ),
    ],
)
def test_a_reading_core_is_found(text: str, read: str) -> None:
    assert reads_of_the_world(module_of("fleet.node", text)) == {read}


def test_an_instant_that_is_given_is_fine() -> None:
    text = "from datetime import datetime\ndef due(now: datetime) -> datetime:\n    return datetime.fromtimestamp(0)"
    assert reads_of_the_world(module_of("fleet.node", text)) == set()
