"""A trace of any format is requests in order of time; what cannot be meant is named by line and field."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from baseai.twin.neutral import BadRow
from baseai.twin.serving.trace import Draw, Request, stretch_of, trace_of

OURS = "at_s,prompt_tokens,answer_tokens\n7,100,20\n5.5,,\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
MOONCAKE = (
    '{"timestamp": 1000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
    '{"timestamp": 3500, "input_length": 10, "output_length": 2, "hash_ids": []}\n'
)
RATES = "t_s,requests_per_s,active_clients\n0,10,3\n600,0,3\n1200,20,4\n"


def draw(seed: int = 1, *, share: float = 1.0, variation: float = 1.0) -> Draw:
    return Draw(rng=np.random.default_rng(seed), share=share, gap_variation=variation)


def read(text: str, of: Draw | None = None) -> tuple[Request, ...]:
    return trace_of(text.splitlines(keepends=True), "t.csv", of or draw())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(OURS, [(0.0, 0, 0), (1.5, 100, 20)], id="ours, put in order, from 0 s"),
        pytest.param(
            AZURE, [(0.0, 374, 44), (4.314579, 396, 109)], id="Azure, to the tenth of a microsecond"
        ),
        pytest.param(MOONCAKE, [(0.0, 6758, 500), (2.5, 10, 2)], id="Mooncake, milliseconds"),
    ],
)
def test_trace_of(text: str, expected: list[tuple[float, int, int]]) -> None:
    found = read(text)
    assert [(round(each.at_s, 6), *each[1:]) for each in found] == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", "line 1, columns: none of at_s", id="empty"),
        pytest.param("at_s,prompt_tokens,answer_tokens\n", "line 1, rows: it holds no request", id="a head alone"),
        pytest.param("job_id,submit_s\na,1\n", "line 1, columns: none of at_s", id="another file"),
        pytest.param(OURS + "8,1\n", "line 4, row: 2 cells of 3", id="a short row"),
        pytest.param(OURS + "8,1.5,2\n", "line 4, prompt_tokens: 1.5 is not a whole number", id="half a token"),
        pytest.param(OURS + "-8,1,2\n", "line 4, at_s: -8 is not a number from 0", id="before the beginning"),
        pytest.param(AZURE + "yesterday,1,2\n", "line 4, TIMESTAMP: 'yesterday' is no instant", id="no instant"),
        pytest.param(MOONCAKE + "{oops\n", "line 3, line: it is not JSON", id="no JSON"),
        pytest.param(MOONCAKE + '{"timestamp": true}\n', "line 3, timestamp: True is not", id="no number"),
        pytest.param(RATES + "900,1,1\n", "line 5, t_s: 900 is not later than 1200", id="rates out of order"),
        pytest.param("t_s,requests_per_s\n0,1\n", "line 1, rows: two stretches", id="one rate"),
        pytest.param("t_s,requests_per_s\n0,9e9\n600,1\n", "take a share", id="more than memory holds"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_named(text: str, told: str) -> None:
    with pytest.raises(BadRow, match=r"^t\.csv, line \d+") as caught:
        read(text)
    assert told in str(caught.value)


def test_requests_drawn_from_rates_come_as_often_as_the_rates_say_and_not_where_they_are_0() -> None:
    found = np.array([each.at_s for each in read(RATES)])
    assert 5700 < np.count_nonzero(found < 600) < 6300
    assert np.count_nonzero((found > 601) & (found < 1199)) == 0
    assert 11600 < np.count_nonzero(found > 1199) < 12400
    assert len(read(RATES, draw(share=0.1))) < 0.12 * len(found)


def test_the_same_seed_draws_the_same_requests_and_variation_makes_bursts() -> None:
    assert read(RATES, draw(3)) == read(RATES, draw(3)) != read(RATES, draw(4))
    gaps = {
        variation: np.diff([each.at_s for each in read(RATES, draw(variation=variation)) if each.at_s < 500])
        for variation in (0.5, 1.0, 3.0)
    }
    strayed = {variation: float(np.std(each) / np.mean(each)) for variation, each in gaps.items()}
    assert strayed == {variation: pytest.approx(variation, rel=0.15) for variation in strayed}


def test_a_stretch_is_a_trace_of_its_own() -> None:
    assert stretch_of(read(OURS), from_s=1.0, for_s=10.0) == (Request(0.5, 100, 20),)


def test_the_recorded_traces_are_read_whole(shared: Path) -> None:
    counts = {
        "AzureLLMInferenceTrace_conv.csv.gz": 19_366,
        "mooncake_conversation_first60pct.jsonl.gz": 7_218,
    }
    for name, count in counts.items():
        with gzip.open(shared / "traces" / "llm" / name, "rt") as lines:
            assert len(trace_of(lines, name, draw())) == count
