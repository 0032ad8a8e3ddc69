"""What is made of a checkpoint: the very model that the run itself exports, ready to be served while it goes on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baseai.ground.fault import Refused
from baseai.workloads.training.export import exported, main
from tests.workloads.inference.hosted import hosted
from tests.workloads.training.launched import Launched

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

Told = Callable[..., dict[str, Any]]
Launch = Callable[[dict[str, Any]], Launched]


def test_the_newest_checkpoint_is_exported_and_answers(told: Told, launch: Launch, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run = launch(told("run", workers=1))
    assert run.ended() == 0, run.stderr.read_text()
    recipe = {key: run.told[key] for key in ("recipe", "config")}
    folder = Path(run.told["checkpoint_folder"])
    found = exported(folder, target=tmp_path / "model", **recipe)
    assert found.step == 120
    ours, its = (
        load_file(each / "model.safetensors")
        for each in (tmp_path / "model", Path(run.told["output_folder"]))
    )
    assert ours.keys() == its.keys()
    assert all(bool((ours[name] == its[name]).all()) for name in its)

    checkpoints = {"folder": str(folder), **recipe}
    with hosted(tmp_path / "replica", "model: run:gpt\n", model_checkpoints=checkpoints) as replica:
        asked = {"model": "shop", "prompt": "line 3", "max_tokens": 8, "temperature": 0}
        answer = replica.post("/v1/completions", asked)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] > 0


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refused, match="it has saved no checkpoint yet"):
        exported(tmp_path, "gpt", {}, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert main([]) == 64
    assert "usage" in capsys.readouterr().err
    checkpoints = {"folder": str(tmp_path / "none"), "recipe": "gpt", "config": {}}
    with hosted(tmp_path / "replica", "model: run:gpt\n", model_checkpoints=checkpoints) as replica:
        assert replica.ended() == 64
        assert replica.last_line() == (
            "model run:gpt: no model could be made of the run gpt: it has saved no checkpoint yet; wait until it has"
            " saved a checkpoint, or name another run"
        )
