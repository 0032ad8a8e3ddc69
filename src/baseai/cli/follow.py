"""Following is staying with a run until it ends: its state and progress, or its log.

Invariant: an outage of the platform is waited out and nothing of a log is lost or shown twice: a piece is written
whole or not at all, and the next request starts where it ended. Only an outage longer than the patience ends it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from baseai.cli.call import segment
from baseai.cli.column import figure, plain
from baseai.cli.http import Declined, NoPlatform, Platform

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from baseai.api.schemas import RunView
    from baseai.cli.screen import Screen

ENDED = frozenset({"succeeded", "failed", "cancelled"})
POLL_S = 1.0
LONG_POLL_S = 10
PATIENCE_S = 600.0
BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
LINE_EVERY_S = 10.0  # off a terminal a running train run says this often where it is
LAST_PIECES = 5  # how often an ended run's log is asked for a tail that its node has not delivered yet

Got = TypeVar("Got")


def patiently(
    ask: Callable[[], Got],
    *,
    note: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    patience_s: float = PATIENCE_S,
) -> Got:
    """Ask until there is an answer, waiting longer each time; after `patience_s` the outage is raised.

    An outage is a platform that does not answer, or one that answers without being itself (5xx).
    """
    since: float | None = None
    tries = 0
    while True:
        try:
            answer = ask()
        except (NoPlatform, Declined) as gone:
            if isinstance(gone, Declined) and not gone.is_outage:
                raise
            now = clock()
            if since is None:
                since = now
                note("the platform does not answer; trying again")
            if now - since > patience_s:
                raise
            sleep(BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)])
            tries += 1
            continue
        if since is not None:
            note("connected again")
        return answer


def view_of(platform: Platform, run_id: str) -> "RunView":
    """The run as it is now."""
    from baseai.api.schemas import RunDetail

    return platform.get(f"/runs/{segment(run_id)}").read(RunDetail).run


# ---- state and progress ---------------------------------------------------------------------------------------


def state_line(run: "RunView") -> str:
    """One line for a state: what it is, and why."""
    because = plain(run.sentence or run.reason or "")
    if run.state == "queued" and run.wait is not None:
        because = plain(run.wait.sentence)
    return f"{plain(run.name)}: {run.state}" + (f" ({because})" if because else "")


def gist(run: "RunView") -> str:
    """The same without the estimate, which moves with every cycle of the scheduler and is no news by itself."""
    estimate = run.wait.estimate if run.wait is not None else None
    return state_line(run).replace(plain(estimate.sentence), "") if estimate is not None else state_line(run)


def progress_text(run: "RunView") -> str:
    """Step, loss, speed and goodput of a train run, as far as they are known."""
    progress = run.progress
    parts = []
    if progress.get("step") is not None:
        total = progress.get("steps_total")
        parts.append(f"step {progress['step']}" + (f"/{total}" if total else ""))
    if text := figure(progress.get("loss")):
        parts.append(f"loss {text}")
    if text := figure(progress.get("tokens_per_s")):
        parts.append(f"{text} tokens/s")
    goodput = progress.get("goodput_ratio")
    if isinstance(goodput, (int, float)):
        parts.append(f"goodput {goodput:.1%}")
    return ", ".join(parts)


def follow_run(
    client: Platform,
    run_id: str,
    console: "Console",
    *,
    watch: "Callable[[RunView], None] | None" = None,
    poll_s: float = POLL_S,
) -> "RunView":
    """Stay with a run until it has ended and give its last view.

    On a terminal a bar shows step, loss, speed and goodput; elsewhere a line for each state and now and then one
    for the progress. `watch` is called with every view. An outage of the platform is waited out.
    """
    bar = _Bar(console) if console.is_terminal else _Lines(console)
    with bar:
        while True:
            run = patiently(lambda: view_of(client, run_id), note=bar.note, sleep=client.sleep)
            bar.show(run)
            if watch is not None:
                watch(run)
            if run.state in ENDED:
                return run
            client.sleep(poll_s)


class _Lines:
    """Plain lines, for files and pipes."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self._said = ""
        self._said_at = 0.0
        self._step: object = None

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def show(self, run: "RunView") -> None:
        if gist(run) != self._said:
            self._said = gist(run)
            self.note(state_line(run))
        step = run.progress.get("step")
        ended = run.state in ENDED
        if (
            step is not None
            and step != self._step
            and (ended or time.monotonic() - self._said_at >= LINE_EVERY_S)
        ):
            self._step, self._said_at = step, time.monotonic()
            self.note(progress_text(run))


class _Bar(_Lines):
    """A bar below the lines, for people."""

    def __init__(self, console: "Console") -> None:
        super().__init__(console)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, run: "RunView") -> None:
        if gist(run) != self._said:
            self._said = gist(run)
            self.note(state_line(run))
        step, total = run.progress.get("step"), run.progress.get("steps_total")
        if not isinstance(step, int) or not isinstance(total, int):
            return
        if self._progress is None:
            self._progress = _progress(self.console)
            self._progress.start()
            self._task = self._progress.add_task(plain(run.name), total=total, figures="")
        assert self._task is not None
        figures = progress_text(run).partition(", ")[2]
        self._progress.update(
            self._task, completed=step, total=total, description=plain(run.name), figures=figures
        )
        self._progress.refresh()


def _progress(console: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        auto_refresh=False,
        expand=False,
    )


# ---- logs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """What one request gave of a log."""

    content: bytes
    next_offset: int
    ended: bool  # nothing will come after it


def log_piece(
    platform: Platform, run_id: str, *, attempt: int | str, node_rank: int, offset: int, wait_s: int = 0
) -> LogPiece:
    """The log from `offset` bytes on; with `wait_s` the platform may wait that long for something to show."""
    query = {"offset": offset, "node_rank": node_rank, "attempt": attempt, "wait_s": wait_s or None}
    answer = platform.send("GET", f"/runs/{segment(run_id)}/logs", query=query, wait_s=wait_s)
    return LogPiece(
        content=answer.body,
        next_offset=int(answer.headers.get("x-next-offset", offset + len(answer.body))),
        ended=answer.headers.get("x-log-ended", "false").lower() == "true",
    )


def print_log(
    platform: Platform,
    run_id: str,
    *,
    attempt: int | str,
    node_rank: int,
    write: Callable[[LogPiece, int], None],
    offset: int = 0,
) -> int:
    """Write what there is of a log now and give the offset after it."""
    while True:
        piece = log_piece(platform, run_id, attempt=attempt, node_rank=node_rank, offset=offset)
        if piece.next_offset <= offset:
            return offset
        write(piece, offset)
        offset = piece.next_offset


def follow_log(
    platform: Platform,
    run_id: str,
    screen: "Screen",
    *,
    attempt: int | None,
    node_rank: int,
    write: Callable[[LogPiece, int], None],
    poll_s: float = POLL_S,
) -> "RunView":
    """Write a log as it grows, through outages and from attempt to attempt, until the run has ended.

    attempt: that one only; None begins with the latest and goes on with those that come after it.
    """

    def note(text: str) -> None:
        screen.note(f"baseai: {text}")

    run = view_of(platform, run_id)  # a platform that was never there is said at once
    run_id = run.run_id  # a later run may take the name
    said = ""
    current = attempt or run.attempt_no
    while current < 1:
        line = state_line(run)
        if line != said:
            said = line
            note(line)
        if run.state in ENDED:
            return run
        platform.sleep(poll_s)
        run = patiently(lambda: view_of(platform, run_id), note=note, sleep=platform.sleep)
        current = run.attempt_no
    offset = 0
    empty_after_end = 0
    while True:
        wait_s = LONG_POLL_S if empty_after_end == 0 else 1

        def ask(offset: int = offset, current: int = current, wait_s: int = wait_s) -> LogPiece | None:
            try:
                return log_piece(
                    platform, run_id, attempt=current, node_rank=node_rank, offset=offset, wait_s=wait_s
                )
            except Declined as wrong:
                if wrong.status == 404 and attempt is None:
                    return None  # this attempt has written nothing yet
                raise

        piece = patiently(ask, note=note, sleep=platform.sleep)
        if piece is not None and piece.next_offset > offset:
            write(piece, offset)
            offset = piece.next_offset
            continue
        run = patiently(lambda: view_of(platform, run_id), note=note, sleep=platform.sleep)
        log_over = piece is not None and piece.ended
        if attempt is None and run.attempt_no > current and (log_over or empty_after_end >= 1):
            current, offset, empty_after_end = run.attempt_no, 0, 0
            note(f"attempt {current}")
            continue
        if (run.state in ENDED or attempt is not None) and (log_over or empty_after_end >= LAST_PIECES):
            return run
        if run.state in ENDED or run.attempt_no > current:
            empty_after_end += 1
        if piece is None or log_over or run.state in ENDED:
            platform.sleep(poll_s)
