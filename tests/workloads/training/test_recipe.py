import subprocess
import sys
from pathlib import Path

import pytest

import baseai
from baseai.workloads.training.recipe import RecipeRefused, checked, keys, recipes


def test_defaults_fill_what_was_not_given() -> None:
    config = checked("gpt", {"steps": 7, "learning_rate": "1e-3", "width": 64.0})
    assert (config["steps"], config["learning_rate"], config["width"]) == (7, 0.001, 64)
    assert set(config) == set(keys("gpt"))
    assert checked("gpt", config) == config


@pytest.mark.parametrize(
    ("config", "key", "sentence"),
    [
        pytest.param({"widht": 1}, "widht", "did you mean width?", id="nearest key"),
        pytest.param({"qqq": 1}, "qqq", "the keys are batch,", id="all keys where none is near"),
        pytest.param({"steps": 0}, "steps", "give at least 1 steps", id="too small"),
        pytest.param({"dropout": 1.5}, "dropout", "give at most 0.9", id="too large"),
        pytest.param(
            {"learning_rate": float("nan")}, "learning_rate", "not a finite number", id="not finite"
        ),
        pytest.param({"steps": True}, "steps", "not a whole number", id="true is no number"),
        pytest.param({"steps": 1.5}, "steps", "not a whole number", id="no half steps"),
        pytest.param({"text": 3}, "text", "not a text", id="wrong type"),
        pytest.param({"heads": 5}, "heads", "5 does not divide the width 192", id="two keys that disagree"),
    ],
)
def test_a_wrong_key_is_named_with_its_fix(config: dict[str, object], key: str, sentence: str) -> None:
    with pytest.raises(RecipeRefused) as refused:
        checked("gpt", config)
    assert refused.value.key == key
    assert sentence in str(refused.value)


def test_every_recipe_says_what_it_trains_and_what_its_keys_mean() -> None:
    assert "gpt" in recipes()
    for name, line in recipes().items():
        assert line
        assert all(key.meaning for key, _ in keys(name).values())


def test_checking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from baseai.workloads.training.recipe import checked; checked('gpt', {}); "
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(baseai.__file__).parents[1])
