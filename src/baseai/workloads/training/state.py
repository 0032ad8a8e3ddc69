"""The state of a training run as named tensors: weights, buffers, and what the optimiser remembers.

Invariant: the names do not depend on how the model was spread over workers, so that a run checkpointed under DDP
goes on under FSDP2 and the other way round, at any number of workers. Weights that are tied appear once.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

MODEL, OPTIMIZER = "model.", "optimizer."


def replicated(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The live tensors of a replicated model, by name; nothing is copied."""
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[MODEL + name] = tensor.detach()
    for name, parameter in model.named_parameters():
        for memory, value in optimizer.state[parameter].items():
            if memory != "step":
                tensors[f"{OPTIMIZER}{memory}.{name}"] = value
    return tensors


def gathered(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The same names for a sharded model, gathered whole on rank 0's CPU. Every rank must call it."""
    from torch.distributed.checkpoint import state_dict as dcp

    options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, memories = dcp.get_state_dict(model, optimizer, options=options)
    tensors: dict[str, torch.Tensor] = {}
    twins = _twins(model)
    for name, tensor in weights.items():
        if name not in twins:
            tensors[MODEL + name] = cast(torch.Tensor, tensor)
    for name, memory in cast(dict[str, dict[str, torch.Tensor]], memories.get("state", {})).items():
        for each, value in memory.items():
            if each != "step":
                tensors[f"{OPTIMIZER}{each}.{name}"] = value
    return tensors


def restore(path: Path, step: int, model: nn.Module, optimizer: Optimizer, *, sharded: bool) -> None:
    """Put the checkpointed tensors back into the model and the optimiser. Every rank reads the file itself."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    weights = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    memories: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(OPTIMIZER):
            memory, parameter = name.removeprefix(OPTIMIZER).split(".", 1)
            memories.setdefault(parameter, {})[memory] = tensor
    if sharded:
        _restore_sharded(weights, memories, step, model, optimizer)
        return
    _put(weights, model)
    for name, parameter in model.named_parameters():
        if name in memories:
            moved = {each: tensor.to(parameter.device) for each, tensor in memories[name].items()}
            counted = torch.tensor(float(step), device=parameter.device)
            optimizer.state[parameter] = {"step": counted, **moved}


def restore_weights(path: Path, model: nn.Module) -> None:
    """Put the checkpointed weights alone into a whole model."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    _put({name.removeprefix(MODEL): each for name, each in tensors.items() if name.startswith(MODEL)}, model)


def _put(weights: dict[str, torch.Tensor], model: nn.Module) -> None:
    live = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in weights.items():
            live[name].copy_(tensor)


def _restore_sharded(
    weights: dict[str, torch.Tensor],
    memories: dict[str, dict[str, torch.Tensor]],
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
) -> None:
    from torch.distributed.checkpoint import state_dict as dcp

    whole: dict[str, Any] = {**weights, **{twin: weights[name] for twin, name in _twins(model).items()}}
    options = dcp.StateDictOptions(full_state_dict=True)
    dcp.set_model_state_dict(model, whole, options=options)
    remembered = {name: {"step": torch.tensor(float(step)), **memory} for name, memory in memories.items()}
    described = dcp.get_optimizer_state_dict(model, optimizer, options=options)
    dcp.set_optimizer_state_dict(
        model,
        optimizer,
        {"state": remembered, "param_groups": described["param_groups"]},
        options=options,
    )


def _twins(model: nn.Module) -> dict[str, str]:
    """Names of tied tensors, each with the name under which the tensor is kept."""
    first: dict[int, str] = {}
    twins: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        kept = first.setdefault(id(tensor), name)
        if kept != name:
            twins[name] = kept
    return twins
