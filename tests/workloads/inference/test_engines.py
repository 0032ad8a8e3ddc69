"""Loading: what an engine needs of a folder, and what it says of one that it cannot use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baseai.workloads.inference.engine import (
    Assignment,
    Embeds,
    Engine,
    Generates,
    Infers,
    ModelUnusable,
    Sampling,
)
from baseai.workloads.inference.engines.chat import ChatEngine
from baseai.workloads.inference.engines.continuation import drawn
from baseai.workloads.inference.engines.embeddings import EmbeddingsEngine
from baseai.workloads.inference.engines.onnx import OnnxEngine
from baseai.workloads.inference.model_source import digest_of
from tests.workloads.inference.served import Served
from tests.workloads.inference.tiny_gpt import write_tiny_gpt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def assignment(folder: Path, **other: Any) -> Assignment:
    return Assignment(**{"model": str(folder), "model_name": "m", "concurrency": 1} | other)


@pytest.mark.parametrize("engine", [OnnxEngine, EmbeddingsEngine, ChatEngine])
def test_engines_can_what_their_names_say(engine: Callable[[Assignment], Any], tmp_path: Path) -> None:
    made = engine(assignment(tmp_path))
    assert isinstance(made, Engine)
    assert isinstance(made, Generates) is (engine is ChatEngine)
    assert isinstance(made, Embeds) is (engine is EmbeddingsEngine)
    assert isinstance(made, Infers) is (engine is not ChatEngine)


@pytest.fixture
def encoder(minilm: Served, tmp_path: Path) -> Path:
    """The encoder's folder with a copy of all but its weights."""
    source = Path(minilm.app.engine._assignment.model)  # type: ignore[attr-defined]
    for path in source.rglob("*.json"):
        target = tmp_path / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    return tmp_path


def rewrite(path: Path, **other: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | other))


def test_an_encoders_folder_is_enough(encoder: Path) -> None:
    engine = EmbeddingsEngine(assignment(encoder, most_tokens=32))
    engine.load()
    described = engine.describe()
    assert (described.context, described.facts["dimensions"], described.facts["pooling"]) == (32, 384, "mean")
    assert described.digest == digest_of(encoder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(
            lambda folder: (folder / "config.json").unlink(), "config.json cannot be read", id="no config"
        ),
        pytest.param(
            lambda folder: (folder / "config.json").write_text("{"), "cannot be read", id="half a config"
        ),
        pytest.param(
            lambda folder: (folder / "config.json").write_text("{}"), "says no vocab_size and no", id="none"
        ),
        pytest.param(lambda folder: (folder / "tokenizer.json").unlink(), "loads", id="no tokenizer"),
        pytest.param(lambda folder: (folder / "model.safetensors").unlink(), "loads", id="no weights"),
        pytest.param(
            lambda folder: rewrite(folder / "1_Pooling" / "config.json", pooling_mode_max_tokens=True),
            "it pools by pooling_mode_mean_tokens, pooling_mode_max_tokens",
            id="another pooling",
        ),
    ],
)
def test_a_folder_that_is_no_encoders_says_why(
    encoder: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    spoil(encoder)
    with pytest.raises(ModelUnusable, match=words):
        EmbeddingsEngine(assignment(encoder)).load()


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_no_language_models_says_why(tmp_path: Path, lost: str) -> None:
    write_tiny_gpt(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(ModelUnusable, match=r"give (the|a) folder"):
        ChatEngine(assignment(tmp_path)).load()


def test_a_service_may_narrow_the_context(tmp_path: Path) -> None:
    engine = ChatEngine(assignment(write_tiny_gpt(tmp_path), most_tokens=24, digest="d" * 64))
    engine.load()
    assert engine.describe().context == 24
    assert engine.describe().digest == "d" * 64  # reckoned by who brought it


def test_a_nucleus_holds_the_likeliest_and_no_more_than_it_must() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.3, 0.1]))
    chance = torch.Generator().manual_seed(0)
    tokens = {
        top_p: {drawn(logits, Sampling(top_p=top_p), chance) for _ in range(300)} for top_p in (0.4, 0.6, 1.0)
    }
    assert tokens == {0.4: {1}, 0.6: {1, 2}, 1.0: {0, 1, 2, 3}}


def test_heat_evens_out_and_cold_does_not_change_a_share_of_one() -> None:
    logits = torch.tensor([0.0, 2.0])
    chance = torch.Generator().manual_seed(0)
    shares = [
        sum(drawn(logits, Sampling(temperature=heat), chance) for _ in range(400)) / 400
        for heat in (0.2, 1.0, 2.0)
    ]
    assert shares[0] > 0.99 > shares[1] > shares[2] > 0.6
    assert drawn(logits, Sampling(temperature=0.0), chance) == 1
