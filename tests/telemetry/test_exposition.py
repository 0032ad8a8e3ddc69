"""What can be read of a text comes out, what cannot is said with its line, and a line that was cut gives no number."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseai.telemetry.exposition import Announced, Parser, Scrape

FIXTURES = Path(__file__).parent / "fixtures"


def read(text: str | bytes, *, openmetrics: bool | None = None) -> Scrape:
    return Parser().parse(text, openmetrics=openmetrics)


def samples(scrape: Scrape) -> list[tuple[str, dict[str, str], float]]:
    return [
        (metric.name, dict(metric.labels), value)
        for metric, value in zip(scrape.metrics, scrape.values, strict=True)
    ]


def told(scrape: Scrape) -> list[str]:
    return [f"{trouble.source}: {trouble.sentence}" for trouble in scrape.troubles]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("a 1", ("a", {}, 1.0), id="a bare name"),
        pytest.param('a{b="c"} 1', ("a", {"b": "c"}, 1.0), id="a label"),
        pytest.param(
            'a{ b = "c" , d="e", } 1', ("a", {"b": "c", "d": "e"}, 1.0), id="blanks and a last comma"
        ),
        pytest.param("a{} 1", ("a", {}, 1.0), id="braces with nothing in them"),
        pytest.param('a{b="} 2 #"} 1', ("a", {"b": "} 2 #"}, 1.0), id="a brace within a value"),
        pytest.param(r'a{b="x\"y\\z\n\q"} 1', ("a", {"b": 'x"y\\z\n\\q'}, 1.0), id="escapes"),
        pytest.param('a{b="ção"} 1', ("a", {"b": "ção"}, 1.0), id="letters of the world"),
        pytest.param('{"a.b","c d"="e"} 1', ("a.b", {"c d": "e"}, 1.0), id="quoted names"),
        pytest.param("a\t1", ("a", {}, 1.0), id="a tab"),
        pytest.param("  a   1  ", ("a", {}, 1.0), id="many blanks"),
        pytest.param("a 1\r", ("a", {}, 1.0), id="a carriage return"),
        pytest.param("a +Inf", ("a", {}, math.inf), id="infinity"),
        pytest.param("a -1.5e-07", ("a", {}, -1.5e-7), id="a small number"),
        pytest.param(
            'a_bucket{le="1"} 5 # {id="x"} 0.5 17.2', ("a_bucket", {"le": "1"}, 5.0), id="an exemplar"
        ),
        pytest.param("a:b_c 1 1700000000000", ("a:b_c", {}, 1.0), id="a timestamp"),
    ],
)
def test_a_line(line: str, expected: tuple[str, dict[str, str], float]) -> None:
    parser = Parser()
    for _ in range(2):  # the second time from what is kept
        scrape = parser.parse(line + "\n")
        assert samples(scrape) == [expected]
        assert scrape.troubles == ()
        assert scrape.whole


def test_no_number_is_a_number() -> None:
    [(_, _, value)] = samples(read("a NaN\n"))
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("a", "no number", id="a name alone"),
        pytest.param("a x", "'x' is no number", id="a word for a number"),
        pytest.param("a 1_000", "'1_000' is no number", id="a number only Python knows"),
        pytest.param("a 1 2 3", "more than number and timestamp", id="too many words"),
        pytest.param('a{b="c" 1', "labels without an end", id="open braces"),
        pytest.param('a{b="c} 1', "labels without an end", id="an open quote"),
        pytest.param("a{b=c} 1", "no label at", id="a value without quotes"),
        pytest.param("9a 1", "no name", id="a name that begins with a digit"),
        pytest.param('{b="c"} 1', "no name", id="labels alone"),
        pytest.param("<html>", "no name", id="something else entirely"),
        pytest.param("a 1 soon", "'soon' is no number", id="a word for a timestamp"),
    ],
)
def test_a_line_that_is_none_is_said_and_the_rest_kept(line: str, why: str) -> None:
    parser = Parser()
    for _ in range(2):
        scrape = parser.parse(f"x 1\n{line}\ny 2\n")
        assert [(name, value) for name, _, value in samples(scrape)] == [("x", 1), ("y", 2)]
        [sentence] = told(scrape)
        assert sentence.startswith("line 2: ")
        assert why in sentence
        assert not scrape.whole


def test_comments_say_what_a_name_is() -> None:
    scrape = read("# HELP a What\\nit is.\n# TYPE a counter\n# just a word\n#\n# TYPE b gauge\na 1\n")
    assert scrape.announced == {
        "a": Announced(type="counter", help="What\nit is."),
        "b": Announced(type="gauge"),
    }
    assert scrape.whole


def test_a_line_without_its_end_gives_no_number() -> None:
    scrape = read("a 1\nb 23")
    assert samples(scrape) == [("a", {}, 1.0)]
    assert told(scrape) == ["line 2: the text ends within the line 'b 23'; nothing of it is used"]
    assert not scrape.whole


def test_a_number_that_ends_in_its_exponent_is_not_believed() -> None:
    """AMD's own page ends with 3.545990503e+0: read as it stands it is wrong by a factor of 10^9."""
    scrape = read((FIXTURES / "amd_mi300x_docs_clock_xgmi.prom").read_bytes())
    assert len(scrape) == 20
    assert told(scrape) == ["line 21: the text ends within a number, 3.545990503e+0; it is not used"]
    assert not scrape.whole
    assert read("a 3.5e+0\nb 1\n").values == [3.5, 1.0]  # within a text it stands as somebody wrote it


@pytest.mark.parametrize(
    ("text", "openmetrics", "sentences"),
    [
        pytest.param("a 1\n# EOF\n", None, [], id="whole"),
        pytest.param("a 1\n# EOF", None, [], id="whole, its last line without an end"),
        pytest.param("a 1\n", None, [], id="Prometheus text has no end"),
        pytest.param(
            "a 1\n", True, ["line 1: the text ends without # EOF: what followed is missing"], id="said by type"
        ),
        pytest.param(
            "# UNIT a_s s\na_s 1\n", None, ["line 2: the text ends without # EOF: what followed is missing"],
            id="said by a unit",
        ),
        pytest.param("a 1\n# EOF\nb 2\n", None, ["line 3: stands behind # EOF: 'b 2'"], id="more behind the end"),
    ],
)  # fmt: skip
def test_the_end_of_openmetrics(text: str, openmetrics: bool | None, sentences: list[str]) -> None:
    scrape = read(text, openmetrics=openmetrics)
    assert [sentence.partition(": 'b")[0] for sentence in told(scrape)] == [
        sentence.partition(": 'b")[0] for sentence in sentences
    ]
    assert [name for name, _, _ in samples(scrape)][:1] == [text.split()[0] if text[0] != "#" else "a_s"]
    assert scrape.whole == (not sentences)


@pytest.mark.parametrize(
    ("text", "stamp_ms"),
    [
        pytest.param("a 1 1700000000123\n", 1_700_000_000_123, id="Prometheus counts milliseconds"),
        pytest.param("a 1 1700000000.123\n# EOF\n", 1_700_000_000_123, id="OpenMetrics counts seconds"),
        pytest.param("a 1 1700000000\n# EOF\n", 1_700_000_000_000, id="also whole ones"),
    ],
)
def test_timestamps(text: str, stamp_ms: int) -> None:
    assert read(text).stamps_ms == {0: stamp_ms}


@pytest.mark.parametrize("stamp", ["NaN", "+Inf", "-5", "1e300", "9999999999999999"])
def test_an_instant_that_is_none_costs_only_itself(stamp: str) -> None:
    scrape = read(f"a 1 {stamp}\nb 2\n")
    assert (scrape.values, scrape.stamps_ms) == ([1.0, 2.0], {})
    assert told(scrape) == [f"line 1: {stamp} is no instant; the sample counts as read now"]


def test_a_repeated_line_counts_once_and_the_first_holds() -> None:
    scrape = read('# x\na{b="c"} 1\nd 2\n\na{b="c"} 3\nd 2\ne 4\n')
    assert [(name, value) for name, _, value in samples(scrape)] == [("a", 1), ("d", 2), ("e", 4)]
    assert told(scrape) == ["line 5: a stands in line 2 already, with 1 instead of 3; the first holds"]


def test_the_same_name_at_two_instants_is_no_repetition() -> None:
    scrape = read("a 1 1000\na 2 2000\n")
    assert (scrape.values, scrape.stamps_ms) == ([1.0, 2.0], {0: 1000, 1: 2000})


def test_bytes_that_are_no_text_cost_only_their_place() -> None:
    scrape = read(b'a 1\nb{c="\xff"} 2\n')
    assert samples(scrape) == [("a", {}, 1.0), ("b", {"c": "�"}, 2.0)]
    assert told(scrape) == ["line 2: holds bytes that are no UTF-8; they are read as U+FFFD"]


def test_troubles_are_bounded() -> None:
    scrape = read("garbage\n" * 1000)
    assert len(scrape.troubles) == 51
    assert told(scrape)[-1] == "text: 950 more lines like these"


def test_what_is_kept_is_bounded_and_what_is_used_stays() -> None:
    parser = Parser(kept_max=10)
    kept = parser.parse("steady 1\n").metrics[0]
    for number in range(100):
        assert parser.parse(f"steady 1\npassing_{number} 1\n").metrics[0] is kept
        assert parser.kept <= 20


def test_a_place_knows_its_line() -> None:
    text = "# c\n\na 1\ngarbage\nb 2\n# c\n# c\nc 3\n"
    scrape = read(text)
    lines = text.split("\n")
    assert [lines[scrape.line_of(place) - 1] for place in range(len(scrape))] == ["a 1", "b 2", "c 3"]


NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    max_size=4,
)
SAMPLES = st.lists(
    st.tuples(NAMES, LABELS, st.floats(allow_nan=False), st.none() | st.integers(0, 2**43)),
    max_size=8,
    unique_by=lambda sample: (sample[0], tuple(sorted(sample[1].items()))),
)


def written(name: str, labels: dict[str, str], value: float, stamp: int | None) -> str:
    """A line as the format asks for it."""
    pairs = ",".join(
        '{}="{}"'.format(label, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for label, text in labels.items()
    )
    return f"{name}{{{pairs}}} {value!r}" + (f" {stamp}" if stamp is not None else "")


@given(SAMPLES)
def test_what_is_written_is_read(wanted: list[tuple[str, dict[str, str], float, int | None]]) -> None:
    text = "".join(written(*sample) + "\n" for sample in wanted)
    parser = Parser()
    for _ in range(2):
        scrape = parser.parse(text)
        stamps = [scrape.stamps_ms.get(place) for place in range(len(scrape))]
        assert scrape.troubles == ()
        assert [(*sample, stamp) for sample, stamp in zip(samples(scrape), stamps, strict=True)] == wanted


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_nothing_makes_it_fall(text: str | bytes) -> None:
    scrape = read(text)
    assert len(scrape.metrics) == len(scrape.values)


@given(SAMPLES.filter(bool), st.integers(1, 40))
def test_a_text_cut_anywhere_gives_only_what_stands_in_it(
    wanted: list[tuple[str, dict[str, str], float, int | None]], cut: int
) -> None:
    text = "".join(written(*sample) + "\n" for sample in wanted)
    scrape = read(text[:-cut])
    assert samples(scrape) == [(name, labels, value) for name, labels, value, _ in wanted][: len(scrape)]
