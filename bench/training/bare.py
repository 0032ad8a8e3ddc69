"""The peer: the same model, data order and arithmetic in a plain DDP loop, for bare `torchrun`.

No platform, no reporting; checkpoints with torch.save only where --checkpoint-every is given. Rank 0 appends a
mark at the first step of each life, at step --mark and at the last one, so that both sides are timed alike.
"""

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import nn

from baseai.workloads.training.loop import learning_rate_of, optimizer_of
from baseai.workloads.training.order import samples_of, share_of
from baseai.workloads.training.recipe import configured, recipe_named


def mark(path: Path, **facts: object) -> None:
    with path.open("a") as file:
        file.write(json.dumps(facts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=json.loads)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("marks", type=Path)
    parser.add_argument("--mark", type=int, default=20)
    parser.add_argument("--checkpoint-every", type=int, default=0)
    asked = parser.parse_args()
    life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    config = configured("gpt", asked.config)
    task = recipe_named("gpt").opened(config, asked.prepared)
    model = task.model()
    optimizer = optimizer_of(model, config)
    saved = asked.marks.with_suffix(".pt")
    step = 0
    if asked.checkpoint_every and saved.exists():
        state = torch.load(saved)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    trained = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    weights = list(model.parameters())
    model.train()
    took: list[float] = []
    first = step
    while step < config.steps:
        began_s = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_of(config, step)
        samples = samples_of(seed=config.seed, step=step, batch=config.batch, samples=task.samples)
        batch = task.batch(share_of(samples, rank=rank, world=world).tolist())
        loss = task.loss(trained, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        took.append(time.perf_counter() - began_s)
        step += 1
        if rank == 0 and (step in (first + 1, asked.mark, config.steps)):
            mark(asked.marks, restart=life, step=step, step_ms=median(took[asked.mark :] or took) * 1e3)
        if asked.checkpoint_every and step % asked.checkpoint_every == 0 and rank == 0:
            half = saved.with_suffix(".half")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, half)
            os.replace(half, saved)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
