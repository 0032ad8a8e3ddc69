"""The environment of a run: what its command and its workers find in their variables.

Invariant: of the agent's own environment only the names in `KEPT` reach a run, so that no key of the platform
does; the run's own values win over the node's, and what the lease decides (devices, ranks) wins over both.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from baseai.api.schemas import Launch

CPU_SLOT = "cpu-slot"
KEPT = (
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "SHELL",
    "LD_LIBRARY_PATH",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
OURS = ("train", "service", "burn_in")  # kinds whose program is ours
OURS_KEPT = ("PYTHONPATH",)
ONE_WORKER_EACH = ("train", "burn_in")  # of these kinds, a worker on each accelerator


def cores_of(launch: Launch, allowed: Sequence[int]) -> list[int]:
    """The cores of the leased slots; slots beyond the machine's cores share them round."""
    slots = [device.index for device in launch.devices if device.model == CPU_SLOT]
    return sorted({allowed[index % len(allowed)] for index in slots}) if allowed else []


def threads_of(launch: Launch, cores: int) -> int:
    """How many threads one process of the run computes with; beside accelerators, one for each core."""
    if launch.kind in ONE_WORKER_EACH:
        return 1
    slots = sum(device.model == CPU_SLOT for device in launch.devices)
    return slots or max(1, cores)


def environment_of(
    launch: Launch,
    own: Mapping[str, str],
    *,
    interpreter: Path,
    cores: int,
    attempt_folder: Path,
    home: str | None = None,
) -> dict[str, str]:
    """All variables of the attempt's command, secrets included.

    own: the agent's environment. cores: how many the run is bound to. home: of the user it runs as, when another.
    """
    accelerators = ",".join(str(device.index) for device in launch.devices if device.model != CPU_SLOT)
    threads = threads_of(launch, cores)
    path = own.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    kept = (*KEPT, *OURS_KEPT) if launch.kind in OURS else KEPT
    environment = {name: own[name] for name in kept if name in own}
    environment["PATH"] = f"{interpreter.parent}:{path}"
    if home is not None:
        environment["HOME"] = home
    environment.update({name: str(threads) for name in THREAD_VARIABLES})
    environment["PYTHONUNBUFFERED"] = "1"
    environment.update(launch.env)
    environment.update(launch.secrets)
    if launch.kind == "service" and "PYTHONPATH" in own and "PYTHONPATH" in launch.env:
        # The host of a replica is found by the agent's, a callable by the tenant's; commands are given the latter.
        environment["PYTHONPATH"] = os.pathsep.join((own["PYTHONPATH"], launch.env["PYTHONPATH"]))
    master = launch.addresses[0] if launch.addresses else "127.0.0.1"
    environment.update(
        {
            "BASEAI_RUN_ID": launch.run_id,
            "BASEAI_RUN_NAME": launch.run_name,
            "BASEAI_LEASE_ID": launch.lease_id,
            "BASEAI_ATTEMPT": str(launch.attempt_no),
            "BASEAI_NODES_NUM": str(launch.nodes),
            "BASEAI_NODE_RANK": str(launch.node_rank),
            "BASEAI_NODES_IPS": "\n".join(launch.addresses),
            "BASEAI_MASTER_NODE_IP": master,
            "BASEAI_CHECKPOINT_FOLDER": launch.checkpoint_folder,
            "BASEAI_OUTPUT_FOLDER": launch.output_folder,
            "BASEAI_ATTEMPT_FOLDER": str(attempt_folder),
            "MASTER_ADDR": master,
            "MASTER_PORT": str(launch.rendezvous_port),
            "NODE_RANK": str(launch.node_rank),
            "NNODES": str(launch.nodes),
            "CUDA_VISIBLE_DEVICES": accelerators,
            "ROCR_VISIBLE_DEVICES": accelerators,
        }
    )
    return environment


def train_order(launch: Launch, attempt_folder: Path) -> dict[str, object]:
    """The launcher's order (`train.json`). The run's own keys pass through; the lease's facts win."""
    asked = dict(launch.train or {})
    on_cpu = all(device.model == CPU_SLOT for device in launch.devices)
    defaults = {
        "recipe": "gpt",
        "config": {},
        "workers": max(1, len(launch.devices)),
        "parallel": "ddp",
        "checkpoint_every": "auto",
        "max_restarts": 3,
        "seed": 0,
    }
    known = {name: value for name, value in asked.items() if value is not None}
    return {
        **defaults,
        **known,
        "run_id": launch.run_id,
        "attempt_no": launch.attempt_no,
        "nodes": launch.nodes,
        "node_rank": launch.node_rank,
        "master_addr": launch.addresses[0] if launch.addresses else "127.0.0.1",
        "master_port": launch.rendezvous_port,
        "checkpoint_folder": launch.checkpoint_folder,
        "output_folder": launch.output_folder,
        "attempt_folder": str(attempt_folder),
        "device": "cpu" if on_cpu else "cuda",
        "run_started_at": launch.run_started_at.isoformat() if launch.run_started_at else None,
    }


def service_order(launch: Launch, cores: int, attempt_folder: Path, work_folder: Path) -> dict[str, object]:
    """What the host of a replica reads (`service.json`): the terms, and what this lease gives them.

    cores: how many the run is bound to.
    """
    asked = launch.service or {}
    on_cpu = all(device.model == CPU_SLOT for device in launch.devices)
    return {
        "run_id": launch.run_id,
        "run_name": launch.run_name,
        "attempt_no": launch.attempt_no,
        "service_id": asked.get("service_id"),
        "version_no": asked.get("version_no"),
        "service": asked["terms"],
        "model_path": asked.get("model_path"),
        "model_run_id": asked.get("model_run_id"),
        "model_checkpoints": asked.get("model_checkpoints"),
        "address": launch.addresses[0] if launch.addresses else "127.0.0.1",
        "device": "cpu" if on_cpu else "cuda",
        "accelerators": len(launch.devices),
        "threads": threads_of(launch, cores),
        "stop_grace_s": launch.stop_grace_s,
        "attempt_folder": str(attempt_folder),
        "work_folder": str(work_folder),
        "python_path": launch.env.get("PYTHONPATH"),
        "token": asked.get("token"),
    }


def masked_of(launch: Launch) -> list[str]:
    """What a run's own output must not tell: its secrets, and the token of a replica."""
    token = (launch.service or {}).get("token")
    return [*launch.secrets.values(), *([token] if token else [])]


def burn_in_order(launch: Launch, cores: Sequence[int], attempt_folder: Path) -> dict[str, object]:
    """What the burn-in's launcher reads (`burn_in.json`): the profile, the devices by number, their cores."""
    asked = launch.burn_in or {}
    on_cpu = all(device.model == CPU_SLOT for device in launch.devices)
    return {
        "run_id": launch.run_id,
        "attempt_no": launch.attempt_no,
        "model": asked["model"],
        "profile": asked["profile"],
        "device": "cpu" if on_cpu else "cuda",
        "accelerator_ids": [device.accelerator_id for device in launch.devices],
        "cores": [[cores[index % len(cores)]] for index, _ in enumerate(launch.devices)]
        if on_cpu and cores
        else [],
        "attempt_folder": str(attempt_folder),
    }
