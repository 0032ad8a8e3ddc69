"""What a program of ours finds: its order, its variables, its cores."""

from pathlib import Path
from typing import Any

from baseai.agent.environment import burn_in_order, environment_of
from baseai.api.schemas import Launch, LeasedDevice
from baseai.ground.clock import now_utc

FOLDER = Path("/attempt")


def burn_in(*models: str, **other: Any) -> Launch:
    usual: dict[str, Any] = {
        "lease_id": "lea", "run_id": "run", "run_name": "burn-in-a", "tenant_id": "ten", "attempt_no": 2,
        "kind": "burn_in", "burn_in": {"model": models[0], "profile": "quick"}, "node_rank": 0, "nodes": 1,
        "devices": [
            LeasedDevice(accelerator_id=f"acc{number}", model=model, index=number)
            for number, model in enumerate(models)
        ],
        "addresses": ["10.0.0.1"], "rendezvous_port": 20_000, "checkpoint_folder": "/c", "output_folder": "/o",
        "ends_at": now_utc(), "ends_in_s": 60.0,
    }  # fmt: skip
    return Launch(**(usual | other))


def test_each_slot_of_a_burn_in_has_a_core_of_its_own() -> None:
    order = burn_in_order(burn_in("cpu-slot", "cpu-slot"), [4, 6], FOLDER)
    assert (order["device"], order["cores"]) == ("cpu", [[4], [6]])
    assert order["accelerator_ids"] == ["acc0", "acc1"]


def test_more_slots_than_cores_share_them_round() -> None:
    order = burn_in_order(burn_in(*["cpu-slot"] * 3), [4, 6], FOLDER)
    assert order["cores"] == [[4], [6], [4]]


def test_accelerators_are_bound_by_their_driver_s_numbers() -> None:
    launch = burn_in("H100-SXM", "H100-SXM")
    order = burn_in_order(launch, [], FOLDER)
    assert (order["device"], order["cores"]) == ("cuda", [])
    variables = environment_of(launch, {}, interpreter=Path("/bin/python"), cores=8, attempt_folder=FOLDER)
    assert variables["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert variables["OMP_NUM_THREADS"] == "1"  # one worker on each accelerator
