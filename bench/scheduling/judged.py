"""Decisions as an independent judge sees them: its own reader, its own rules, its own figures and bounds.

The judge is a file beside the traces, not part of the project: it is loaded from its path and told nothing but the
three neutral files. Bounds belong to a workload and are asked for once for each.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from baseai.scheduling.hall import Hall
from baseai.twin.neutral import Segment, cluster_lines, decision_lines, workload_lines
from bench.scheduling.traces import Case

_bounds: dict[tuple[str, str], float] = {}


@cache
def judge_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge_placement", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(
    judge: Path,
    case: Case,
    hall: Hall,
    segments: Sequence[Segment],
    *,
    packing: bool,
    preemptive: bool,
    restart_s: float,
) -> dict[str, Any]:
    """What the judge says: feasible, its errors, its figures."""
    module = judge_at(judge)
    _remember_bounds(module, case.name)
    with tempfile.TemporaryDirectory(prefix="baseai-judged-") as folder:
        files = [Path(folder) / name for name in ("cluster.csv", "workload.csv", "decisions.csv")]
        texts = (cluster_lines(case.bays), workload_lines(case.submissions), decision_lines(segments, hall))
        for file, lines in zip(files, texts, strict=True):
            with file.open("w", newline="") as opened:
                opened.writelines(lines)
        found: dict[str, Any] = module.judge(
            module.read_cluster(files[0]),
            module.read_workload(files[1]),
            module.read_decisions(files[2]),
            "packing" if packing else "time",
            preemptive,
            restart=restart_s,
        )
    return found


def _remember_bounds(module: ModuleType, case: str) -> None:
    """Ask the judge for each bound of a case once; a bound knows only cluster and workload."""

    def once(name: str, ask: Callable[..., float]) -> Callable[..., float]:
        def bound(nodes: object, jobs: object) -> float:
            if (case, name) not in _bounds:
                _bounds[case, name] = ask(nodes, jobs)
            return _bounds[case, name]

        bound.asked = ask  # type: ignore[attr-defined]
        return bound

    for name in ("packing_bound", "makespan_bound", "mean_jct_bound"):
        ask = getattr(module, name)
        setattr(module, name, once(name, getattr(ask, "asked", ask)))
