"""A measured pace is the medians of what was measured, on a line between and beyond."""

import pytest

from baseai.twin.neutral import BadRow
from baseai.twin.serving.pace import FixedPace, MeasuredPace, measured_pace_of
from baseai.twin.serving.trace import Request

HEAD = "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel\n"
TABLE = HEAD + (
    "m,h,100,1,128,50,30,8\nm,h,100,1,128,70,30,8\nm,h,100,1,128,60,30,8\n"
    "m,h,200,1,128,100,30,8\nm,h,100,4,128,200,36,8\nm,other,100,1,128,1,1,8\n"
)


def measured(text: str, model: str = "m") -> MeasuredPace:
    return measured_pace_of(text.splitlines(), "perf.csv", model=model, hardware="h", tensor_parallel=8)


@pytest.mark.parametrize(
    ("prompt", "answer", "under_way", "expected_s"),
    [
        pytest.param(100, 0, 1, 0.060, id="the median"),
        pytest.param(150, 0, 1, 0.080, id="between two sizes"),
        pytest.param(400, 0, 1, 0.180, id="beyond the largest"),
        pytest.param(10, 0, 1, 0.060, id="below the smallest"),
        pytest.param(100, 10, 1, 0.360, id="token by token"),
        pytest.param(100, 10, 4, 0.420, id="slower beside others"),
        pytest.param(100, 10, 3, 0.400, id="between two batches"),
    ],
)
def test_service_s(prompt: int, answer: int, under_way: int, expected_s: float) -> None:
    assert measured(TABLE).service_s(Request(0.0, prompt, answer), under_way) == pytest.approx(expected_s)


def test_a_fixed_pace_is_the_same_for_all() -> None:
    assert FixedPace(each_s=2.0).service_s(Request(0.0, 9, 9), 7) == 2.0


@pytest.mark.parametrize(
    ("text", "model", "told"),
    [
        pytest.param("a,b\n1,2\n", "m", "line 1, columns: model", id="another table"),
        pytest.param(
            TABLE, "gpt", "gpt on h, 8 parallel is not among ['m on h, 8 parallel'", id="not measured"
        ),
        pytest.param(TABLE + "m,h,100,1,128,fast,1,8\n", "m", "line 8, row", id="no number"),
    ],
)
def test_what_was_not_measured_is_refused(text: str, model: str, told: str) -> None:
    with pytest.raises(BadRow) as caught:
        measured(text, model)
    assert told in str(caught.value)
