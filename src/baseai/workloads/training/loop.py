"""The loop: one worker's part of a training run, from the first step it has to do to the last.

Invariant: the trajectory is a function of (config, step): the order of the data, the learning rate and the noise
come from the step's number, and each worker takes its share of a fixed global batch, so that the number of workers,
a kill or a resume changes nothing but time. Rank 0 alone checkpoints and tells; the others never wait for it
outside the gradient sync, and no step has a message beside that sync.
"""

import json
import math
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

from baseai.ground.clock import now_utc
from baseai.workloads import progress
from baseai.workloads.training import checkpoint, order, state
from baseai.workloads.training.assignment import Assignment
from baseai.workloads.training.board import NEVER, Board
from baseai.workloads.training.interval import FIRST_AFTER_S, Cost, interval_s
from baseai.workloads.training.recipe import Task, Training
from baseai.workloads.training.staging import Committed, NotSaved, Staging

if TYPE_CHECKING:
    from torch.distributed import Store

TELL_EVERY_S = 1.0
REMEMBERED_STEPS = 512
FINISHED, STOPPED, FENCED = "finished", "stopped", "fenced"


def learning_rate_of(config: Training, step: int) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))


def optimizer_of(model: nn.Module, config: Training) -> torch.optim.Optimizer:
    """AdamW; vectors (norms, biases) do not decay."""
    matrices = [each for each in model.parameters() if each.ndim > 1]
    vectors = [each for each in model.parameters() if each.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, fused=True
    )


class SyncWatch:
    """Measures the exposed part of DDP's gradient sync.

    Method: DDP hands over each bucket when its last gradient is there; the last of these instants ends this
    worker's own computing, and what passes from it until backward() returns is time that nothing hid: the
    all-reduce of the last buckets, and waiting for slower workers. Sync that overlapped with computing counts
    nothing. On an accelerator the instants are those of the CPU that issues the work, a lower bound.
    """

    def __init__(self, world: int) -> None:
        self._world = world
        self.ready_s = 0.0

    def attach(self, model: nn.parallel.DistributedDataParallel) -> None:
        model.register_comm_hook(state=None, hook=self._sum_bucket)

    def _sum_bucket(self, _: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.ready_s = time.perf_counter()
        summed = bucket.buffer().div_(self._world)
        work = dist.all_reduce(summed, async_op=True)
        assert work is not None
        return work.get_future().then(lambda done: done.value()[0])


class Agreement:
    """How all workers stop, and gather a sharded state, after the same step.

    Rank 0 writes the step before it joins that step's gradient sync; the others look after the sync. On one node
    the board carries it; over several nodes the rendezvous' store does, one look a step.
    """

    def __init__(self, board: Board, store: "Store | None", rank: int, local_rank: int) -> None:
        self._board = board
        self._store = store  # None on a single node
        self._rank = rank
        self._local_rank = local_rank
        self._stop_after = NEVER
        self._wished = False

    def wish_stop(self) -> None:
        """Rank 0 has a reason of its own to stop all workers after the next step."""
        self._wished = True

    def before(self, step: int) -> None:
        """Rank 0 announces; the first worker of another node passes its launcher's wish on."""
        if self._stop_after != NEVER:
            return
        asked = self._board.stop_asked or self._wished
        if self._store is not None:
            if self._rank == 0:
                asked = asked or self._store.check(["stop_asked"])
            elif asked and self._local_rank == 0:
                self._store.set("stop_asked", "1")
        if self._rank == 0 and asked:
            self._stop_after = step
            self._board.stop_after = step
            if self._store is not None:
                self._store.set("stop_after", str(step))

    def announce_save(self, step: int) -> None:
        """Rank 0: gather after this step."""
        self._board.save_after = step
        if self._store is not None:
            self._store.set("save_after", str(step))

    def stops_after(self, step: int) -> bool:
        if self._rank == 0:
            return step >= self._stop_after
        if self._store is None:
            return step >= self._board.stop_after
        if self._stop_after == NEVER and self._store.check(["stop_after"]):
            self._stop_after = int(self._store.get("stop_after"))
        return step >= self._stop_after

    def saves_after(self, step: int) -> bool:
        if self._rank == 0 or self._store is None:
            return self._board.save_after == step
        return self._store.check(["save_after"]) and int(self._store.get("save_after")) == step


class Loop:
    """One worker's run. Call `run` once."""

    def __init__(
        self,
        assignment: Assignment,
        config: Training,
        task: Task,
        board: Board,
        *,
        rank: int,
        local_rank: int,
        store: "Store | None",
        restart: int,
        launched_at: datetime,
    ) -> None:
        self.assignment = assignment
        self.config = config
        self.task = task
        self.board = board
        self.rank = rank
        self.local_rank = local_rank
        self.world = assignment.world
        self.restart = restart
        self.run_started_at = assignment.run_started_at or launched_at
        self.device = torch.device("cuda", local_rank) if assignment.device == "cuda" else torch.device("cpu")
        self.sharded = assignment.parallel == "fsdp2" and self.world > 1
        self.agreement = Agreement(board, store, rank, local_rank)
        self.watch = SyncWatch(self.world)
        self.step_s: deque[float] = deque(maxlen=REMEMBERED_STEPS)  # without the time of saves
        self.executed = 0  # by earlier attempts
        self.resumed_from: checkpoint.Checkpoint | None = None

    def run(self) -> str:
        """Train to the end, or until asked to stop; FINISHED, STOPPED or FENCED."""
        folder = self.assignment.checkpoint_folder
        model = self.task.model().to(self.device)
        self.parameters = sum(each.numel() for each in model.parameters())
        self.resumed_from = self._agreed_checkpoint(folder)
        step = 0
        resumed = self.resumed_from
        if self.sharded:
            trained = self._shard(model)
            self.model, self.optimizer = model, optimizer_of(model, self.config)
            if resumed is not None:
                state.restore(resumed.state, resumed.step, model, self.optimizer, sharded=True)
        else:
            self.model, self.optimizer = model, optimizer_of(model, self.config)
            if resumed is not None:
                state.restore(resumed.state, resumed.step, model, self.optimizer, sharded=False)
            trained = self._replicate(model)
        if resumed is not None:
            step = resumed.step
        if self.rank == 0:
            self.executed = _executed(folder, self.assignment.attempt_no)
            progress.tell(
                self.assignment.attempt_folder,
                "started",
                restart=self.restart,
                step=step,
                resumed_from=str(resumed.path) if resumed else None,
                steps_total=self.config.steps,
                parameters=self.parameters,
                workers=self.world,
            )
        saver = Saver(self) if self.rank == 0 and not self.assignment.checkpoint_every.never else None
        outcome = self._train(trained, step, saver)
        if outcome == FINISHED:
            self._conclude(saver)
        if saver is not None:
            saver.close()
        return outcome

    def _train(self, model: nn.Module, step: int, saver: "Saver | None") -> str:
        config, task, board, world = self.config, self.task, self.board, self.world
        optimizer, watch, agreement = self.optimizer, self.watch, self.agreement
        groups = optimizer.param_groups
        weights = list(self.model.parameters())
        even = config.batch % world == 0
        replicated = world > 1 and not self.sharded
        teller = Teller(self) if self.rank == 0 else None
        tell_loss_every = 1 if self.device.type == "cpu" else 10  # reading a loss makes an accelerator wait
        self.model.train()
        loss_of_rank = math.nan
        while step < config.steps:
            agreement.before(step)
            if self.sharded and saver is not None and saver.due(step + 1):
                agreement.announce_save(step)
            began_s = time.perf_counter()
            rate = learning_rate_of(config, step)
            for group in groups:
                group["lr"] = rate
            samples = order.samples_of(seed=config.seed, step=step, batch=config.batch, samples=task.samples)
            mine = order.share_of(samples, rank=self.rank, world=world).tolist()
            batch = tuple(tensor.to(self.device, non_blocking=True) for tensor in task.batch(mine))
            if task.stochastic:
                torch.manual_seed((config.seed * 1_000_003 + step) * 4099 + self.rank)
            loss = task.loss(model, batch)
            if step % tell_loss_every == 0:
                loss_of_rank = loss.item()
                board.put_loss(self.local_rank, step, loss_of_rank)
            if not even:  # DDP averages over ranks; samples must weigh the same wherever they fall
                loss = loss * (len(mine) * world / config.batch)
            loss.backward()
            synced_s = time.perf_counter()
            if config.clip > 0:
                nn.utils.clip_grad_norm_(weights, config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ended_s = time.perf_counter()
            step += 1
            if teller is not None:
                self.step_s.append(ended_s - began_s)
                board.executed += 1
                exposed_s = synced_s - watch.ready_s if replicated else 0.0
                teller.step_done(step, ended_s - began_s, exposed_s)
            if agreement.stops_after(step - 1):
                if saver is not None or self.sharded:
                    self._save(step, saver, last=True)
                return STOPPED if saver is None or not saver.fenced else FENCED
            if self.sharded:
                if agreement.saves_after(step - 1):
                    self._save(step, saver, last=False)
            elif saver is not None and saver.due(step):
                self._save(step, saver, last=False)
            if saver is not None:
                saver.listen()
                if saver.fenced:
                    agreement.wish_stop()
        return FINISHED

    def _save(self, step: int, saver: "Saver | None", *, last: bool) -> None:
        tensors = state.gathered(self.model, self.optimizer) if self.sharded else None
        if saver is None:
            return
        if tensors is None:
            tensors = state.replicated(self.model, self.optimizer)
        saver.save(step, tensors)
        if last:
            saver.wait(self.assignment.grace_s * 0.8)

    def _conclude(self, saver: "Saver | None") -> None:
        """The last checkpoint is written while the held-out data is judged; then rank 0 exports and tells."""
        if self.assignment.checkpoint_every.never is False and (
            self.resumed_from is None or self.resumed_from.step < self.config.steps
        ):
            self._save(self.config.steps, saver, last=False)
        model = self.model
        if self.sharded:
            from torch.distributed.checkpoint import state_dict as dcp

            whole = dcp.get_model_state_dict(
                model, options=dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
            )
            model = self.task.model().to(self.device)
            if self.rank == 0:
                model.load_state_dict(whole)
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.data, 0)
        sums = torch.tensor(self.task.evaluation(model, self.rank, self.world), dtype=torch.float64)
        if self.world > 1:
            sums = sums.to(self.device) if self.device.type == "cuda" else sums
            dist.all_reduce(sums)
        if self.rank != 0:
            return
        if saver is not None:
            saver.wait(120.0)
        sample = self.task.sample(model)
        folder = self.assignment.output_folder
        half = folder.with_name(f".half-{folder.name}-{os.getpid()}")
        half.mkdir(parents=True)
        self.task.export(model, half)
        described = {"run_id": self.assignment.run_id, "recipe": self.assignment.recipe}
        (half / "training.json").write_text(
            json.dumps(described | {"config": dict(self.assignment.config)}, indent=1)
        )
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(half, folder)
        progress.tell(
            self.assignment.attempt_folder,
            "result",
            step=self.config.steps,
            **self.task.verdict(sums.tolist()),
            sample=sample,
            model_folder=str(folder),
            goodput_ratio=self.goodput_ratio(self.config.steps),
            repeated_steps=max(0, self.executed + self.board.executed - self.config.steps),
            train_loss=self.loss(self.config.steps - 1),
        )

    def goodput_ratio(self, step: int) -> float | None:
        """Steps in the state x median undisturbed step / wall time since the run's first start."""
        wall_s = (now_utc() - self.run_started_at).total_seconds()
        if not self.step_s or wall_s <= 0:
            return None
        return min(1.0, step * median(self.step_s) / wall_s)

    def loss(self, step: int) -> float | None:
        """Mean of the step's losses over this node's workers; None where it is not known or not finite."""
        losses = self.board.losses(step if self.device.type == "cpu" else step - step % 10)
        mean = sum(losses) / len(losses)
        return mean if math.isfinite(mean) else None

    def _agreed_checkpoint(self, folder: Path) -> checkpoint.Checkpoint | None:
        """Rank 0 claims the folder and chooses the newest that verifies; all load the same. Raises Fenced on all."""
        chosen: list[checkpoint.Checkpoint | checkpoint.Fenced | None] = [None]
        if self.rank == 0:
            try:
                if not self.assignment.checkpoint_every.never:
                    checkpoint.claim(folder, self.assignment.attempt_no)
                    checkpoint.sweep(folder, attempt_no=self.assignment.attempt_no, restart=self.restart)
                chosen = [checkpoint.newest(folder)]
            except checkpoint.Fenced as fenced:
                chosen = [fenced]
        if self.world > 1:
            dist.broadcast_object_list(chosen, src=0, device=self.device)
        if isinstance(chosen[0], checkpoint.Fenced):
            raise chosen[0]
        return chosen[0]

    def _replicate(self, model: nn.Module) -> nn.Module:
        if self.world == 1:
            return model
        device_ids = [self.local_rank] if self.device.type == "cuda" else None
        replicated = nn.parallel.DistributedDataParallel(
            model, device_ids=device_ids, gradient_as_bucket_view=True
        )
        self.watch.attach(replicated)
        return replicated

    def _shard(self, model: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        for part in self.task.shards(model):
            fully_shard(part, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model


class Saver:
    """Rank 0's side of checkpoints: when one is due, what it carries, what became of it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._rule = loop.assignment.checkpoint_every
        self._staging = Staging(
            loop.assignment.checkpoint_folder,
            run_id=loop.assignment.run_id,
            attempt_no=loop.assignment.attempt_no,
            restart=loop.restart,
            keep=loop.assignment.keep,
        )
        self._costs: list[Cost] = []
        self._began_s = time.monotonic()
        self._saved_s = self._began_s
        self._interval_s = FIRST_AFTER_S
        self._last_step = -1
        self.fenced = False

    def due(self, step: int) -> bool:
        """True when the state after `step` steps ought to be saved and a buffer is free."""
        rule = self._rule
        if rule.steps is not None:
            wanted = step % rule.steps == 0
        else:
            wanted = time.monotonic() - self._saved_s >= (rule.seconds or self._interval_s)
        return wanted and self._staging.free and step < self._loop.config.steps

    def save(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Stage the state; the writer commits it behind our back."""
        if step == self._last_step:
            return
        if not self._staging.free:
            self._hear(self._staging.finish(30.0))
        facts = {"steps_executed": self._loop.executed + self._loop.board.executed}
        self._staging.stage(tensors, step=step, facts=facts)
        self._last_step = step
        self._saved_s = time.monotonic()

    def listen(self) -> None:
        """Take the writer's news, if there are any."""
        self._hear(self._staging.news())

    def wait(self, timeout_s: float) -> None:
        """Until the writer has answered everything."""
        self._hear(self._staging.finish(timeout_s))

    def close(self) -> None:
        self._staging.close()

    def _hear(self, news: Sequence[Committed | NotSaved]) -> None:
        for each in news:
            if isinstance(each, NotSaved):
                print(each.sentence, file=sys.stderr, flush=True)
                self.fenced = self.fenced or each.newer_attempt_no is not None
                continue
            self._costs.append(Cost(stall_s=each.stall_s, stolen_cpu_s=each.stolen_cpu_s))
            elapsed_s = time.monotonic() - self._began_s
            self._interval_s = interval_s(self._costs, failures=self._loop.restart, elapsed_s=elapsed_s)
            progress.tell(
                self._loop.assignment.attempt_folder,
                "checkpoint",
                step=each.step,
                bytes=each.size_bytes,
                stall_ms=each.stall_s * 1e3,
                save_s=each.save_s,
                path=each.path,
                digest=each.digest,
                interval_steps=self._interval_steps(),
            )

    def _interval_steps(self) -> int:
        if self._rule.steps is not None:
            return self._rule.steps
        wanted_s = self._rule.seconds or self._interval_s
        return max(1, math.ceil(wanted_s / median(self._loop.step_s))) if self._loop.step_s else 1


class Teller:
    """Rank 0's voice: the step lines, about one a second, and the count of executed steps beside the checkpoints."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._told_s: float | None = None
        self._step_s: list[float] = []
        self._exposed_s = 0.0
        self._counter = loop.assignment.checkpoint_folder / f"executed-{loop.assignment.attempt_no:06d}"

    def step_done(self, step: int, step_s: float, exposed_s: float) -> None:
        self._step_s.append(step_s)
        self._exposed_s += exposed_s
        now_s = time.monotonic()
        last = step == self._loop.config.steps
        if self._told_s is not None and now_s - self._told_s < TELL_EVERY_S and not last:
            return
        loop = self._loop
        units = len(self._step_s) * loop.config.batch * loop.task.units_per_sample
        passed_s = sum(self._step_s) if self._told_s is None else now_s - self._told_s
        progress.tell(
            loop.assignment.attempt_folder,
            "step",
            restart=loop.restart,
            step=step,
            steps_total=loop.config.steps,
            loss=loop.loss(step - 1),
            tokens_per_s=units / passed_s if passed_s > 0 else None,
            step_ms=median(self._step_s) * 1e3,
            sync_ratio=None if loop.sharded else self._exposed_s / sum(self._step_s),
            goodput_ratio=loop.goodput_ratio(step),
            tokens_seen=step * loop.config.batch * loop.task.units_per_sample,
        )
        self._counter.parent.mkdir(parents=True, exist_ok=True)
        self._counter.write_text(str(loop.board.executed))
        self._told_s = now_s
        self._step_s.clear()
        self._exposed_s = 0.0


def _executed(folder: Path, attempt_no: int) -> int:
    """Steps done by the attempts before this one, to the last second that they could tell of."""
    total = 0
    for counter in folder.glob("executed-*"):
        if int(counter.name.removeprefix("executed-")) < attempt_no:
            total += int(counter.read_text() or 0)
    return total
