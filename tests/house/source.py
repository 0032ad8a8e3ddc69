"""The source of baseai as the house rules see it: modules, what they import, where they stand.

Invariant: nothing here imports baseai; a rule about text is read from text. To add a room, give it a floor
in `FLOORS`. To add a shell, name its file after the outside thing and, if that thing is new, add it to `SHELLS`.
"""

import ast
import contextlib
import functools
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "baseai"

FLOORS: Sequence[frozenset[str]] = (
    frozenset({"ground"}),
    frozenset({"truth"}),
    frozenset({"catalog", "telemetry", "tenancy"}),
    frozenset({"fleet", "workloads"}),
    frozenset({"scheduling", "finance"}),
    frozenset({"engine", "proving", "serving", "transparency", "planning"}),
    frozenset({"twin", "views"}),
    frozenset({"api", "web", "cli", "agent", "gateway"}),
    frozenset({"wiring", "settings"}),
    frozenset({"__main__"}),
)
FLOOR_OF: Mapping[str, int] = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Sideways, and why.
DOORS_AJAR: Mapping[tuple[str, str], str] = {
    ("cli", "api.schemas"): "the terminal speaks HTTP to the API and shares only its shapes",
    ("agent", "api.schemas"): "the agent speaks HTTP to the API and shares only its shapes",
    ("web", "api.schemas"): "pages show the same shapes that REST answers with",
    ("wiring", "settings"): "wiring reads the environment once, into the settings",
}

KINDS_OF_WORKLOAD = frozenset({"burn_in", "training", "inference", "batch", "workspace", "edge", "quantum"})

# A file or folder with one of these names touches the outside thing of that name; only wiring knows it.
SHELLS = frozenset(
    {
        "postgres", "duckdb", "clickhouse", "tick", "nut", "highs", "publish",
        "ptax_http", "scrape", "nvml", "amd_smi", "tpu", "host", "infiniband", "redfish", "kernel_log", "remote",
        "served", "redis",
    }
)  # fmt: skip

# Rooms and folders that touch the world by their nature.
OUTSIDE = (
    "truth",  # starts PostgreSQL, migrates it, opens sessions
    "workloads.burn_in",  # runs inside the worker of a test, not in the platform
    "workloads.inference",  # runs inside a replica, not in the platform
    "workloads.progress",  # told from inside a run's own processes
    "workloads.training",  # runs inside the worker of a run, not in the platform
    "api",
    "web",
    "cli",
    "agent",
    "gateway",
    "wiring",
    "settings",
    "__main__",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One name a module takes from elsewhere."""

    name: str  # dotted and absolute: `baseai.fleet.node.Node`, `numpy`
    line: int
    at_start: bool  # runs when the module is imported, rather than inside a function or for types only


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One Python file of the package."""

    name: str  # below baseai: `fleet.node`; the package itself is ""
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @property
    def is_shell(self) -> bool:
        return not SHELLS.isdisjoint(self.name.split(".")[1:])

    @property
    def is_core(self) -> bool:
        outside = any(self.name == place or self.name.startswith(place + ".") for place in OUTSIDE)
        return not (outside or self.is_shell or self.room == "ground")


def module_of(name: str, text: str) -> Module:
    """A module that exists only in a test, to see a rule catch it."""
    return Module(name=name, path=PACKAGE / (name.replace(".", "/") + ".py"), tree=ast.parse(text))


def parsed(path: Path) -> ast.Module:
    """The file as Python 3.11 reads it, on whatever Python this is. Raises SyntaxError."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 11))


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every file of the package that is Python; that all of them are is a rule of its own."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        with contextlib.suppress(SyntaxError):
            found.append(Module(name=".".join(parts), path=path, tree=parsed(path)))
    return tuple(found)


def imports(module: Module) -> tuple[Import, ...]:
    return tuple(_imports(module.tree.body, at_start=True))


def _imports(body: Sequence[ast.AST], *, at_start: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name=alias.name, line=node.lineno, at_start=at_start)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(name=f"{node.module}.{alias.name}", line=node.lineno, at_start=at_start)
        else:
            later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            children = tuple(ast.iter_child_nodes(node))
            yield from _imports(children, at_start=at_start and not later and not for_types)


def tracked_files() -> tuple[Path, ...]:
    """Every file the project publishes. Outside a git checkout there is no such list, and it is empty."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    return tuple(ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())
