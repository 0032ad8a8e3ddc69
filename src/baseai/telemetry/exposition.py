"""An exposition is the text in which exporters state what they measured: one line a number, as Prometheus reads it.

Invariant: whatever a text holds, what can be read of it comes out and what cannot is a trouble with its line; a line
that was cut gives no number. Scrapes of one exporter repeat the same `name{labels}` with other numbers, so a parser
keeps what it once took apart; it keeps a bounded number of them.

Format: Prometheus text 0.0.4 and 1.0, OpenMetrics 1.0 (exemplars are passed over).
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from baseai.telemetry.sample import Trouble

KEPT_MAX = 50_000  # taken apart `name{labels}` in each of two generations, about 1 kB each
KEY_CHARS_MAX = 4_096  # longer ones are read and not kept
STAMP_MS_MAX = 253_402_300_799_999  # the last of the year 9999
TROUBLES_MAX = 50  # of one text; the rest is counted


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One `name{labels}`. Equal only to itself: a parser gives the same one for the same text."""

    name: str
    labels: Mapping[str, str]
    folded: Mapping[str, str]  # the same with its label names in lower case


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What the comments of a text say of one name; empty where they say nothing."""

    type: str = ""
    help: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """What one text holds, in its order.

    metrics, values: the same length. stamps_ms: place in them → the sample's own instant, where it has one.
    """

    metrics: Sequence[Metric]
    values: Sequence[float]
    stamps_ms: Mapping[int, int] = field(default_factory=dict)
    announced: Mapping[str, Announced] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
    whole: bool = True  # nothing was cut or unreadable
    other_lines: Sequence[int] = ()  # numbers of the lines that hold no sample

    def __len__(self) -> int:
        return len(self.metrics)

    def line_of(self, place: int) -> int:
        """The number of the line that a sample stands in."""
        low, high = place + 1, place + 1 + len(self.other_lines)
        while low < high:  # as many lines before it as samples and others together
            middle = (low + high) // 2
            if middle - bisect_left(self.other_lines, middle + 1) < place + 1:
                low = middle + 1
            else:
                high = middle
        return low


NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.]*")
BLANKS = re.compile(r"[ \t]*")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
LABEL = re.compile(
    r'[ \t]*(?:([a-zA-Z_][a-zA-Z0-9_.]*)|"((?:[^"\\]|\\.)*)")[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*'
)
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
COMMENT = re.compile(
    r"#[ \t]+(HELP|TYPE|UNIT)[ \t]+(?:\"((?:[^\"\\]|\\.)*)\"|(\S+))(?:[ \t]+(.*))?", re.DOTALL
)
CUT_EXPONENT = re.compile(r"[eE]\+\d$")  # writers put two digits there: 3.54e+0 was 3.54e+09
EOF = "# EOF"


class Parser:
    """Reads the texts of one or several exporters; keeps what it took apart."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._known: dict[str, Metric] = {}
        self._older: dict[str, Metric] = {}  # those of the generation before, until they are asked for again
        self._comments: dict[str, tuple[str, str, str] | None] = {}

    @property
    def kept(self) -> int:
        """How many `name{labels}` it holds taken apart."""
        return len(self._known) + len(self._older)

    def parse(self, text: str | bytes, *, source: str = "", openmetrics: bool | None = None) -> Scrape:
        """Everything that can be read of one text.

        source: for troubles. openmetrics: whether the answer's type said so; None lets `# EOF` or `# UNIT` tell.
        Raises nothing: a text of garbage is a scrape of troubles.
        """
        return _Reading(self, source, openmetrics).read(text)

    def metric(self, key: str) -> Metric:
        """The `name{labels}` taken apart. Raises ValueError when it is none."""
        found = self._known.get(key)
        if found is not None:
            return found
        found = self._older.get(key) or metric_of(key)
        if len(key) <= KEY_CHARS_MAX:
            if len(self._known) >= self._kept_max:
                self._older, self._known = self._known, {}
            self._known[key] = found
        return found

    def comment(self, line: str) -> tuple[str, str, str] | None:
        """Keyword, name and text of a comment that means something."""
        if line not in self._comments:
            if len(self._comments) >= self._kept_max:
                self._comments.clear()
            self._comments[line] = comment_of(line)
        return self._comments[line]


class _Reading:
    """One text while it is read."""

    def __init__(self, parser: Parser, source: str, openmetrics: bool | None) -> None:
        self.parser = parser
        self.source = source
        self.openmetrics = openmetrics
        self.metrics: list[Metric] = []
        self.values: list[float] = []
        self.stamps: dict[int, str] = {}
        self.announced: dict[str, Announced] = {}
        self.other_lines: list[int] = []
        self.troubles: list[Trouble] = []
        self.untold = 0
        self.whole = True
        self.ended = False

    def read(self, text: str | bytes) -> Scrape:
        lines = self._lines(text)
        known = self.parser._known
        metrics, values = self.metrics, self.values
        for number, line in enumerate(lines, 1):
            key, _, digits = line.rpartition(" ")
            metric = known.get(key)
            if metric is None or "_" in digits or self.ended:
                self._other(number, line)
                known = self.parser._known
                continue
            try:
                values.append(float(digits))
            except ValueError:
                self._other(number, line)
            else:
                metrics.append(metric)
        self._finish(lines)
        stamps_ms = self._stamps_ms()
        return Scrape(
            metrics=metrics,
            values=values,
            stamps_ms=stamps_ms,
            announced=self.announced,
            troubles=tuple(self._told()),
            whole=self.whole,
            other_lines=self.other_lines,
        )

    def _lines(self, text: str | bytes) -> list[str]:
        """The lines, without one that was cut."""
        if isinstance(text, bytes):
            text = self._decoded(text)
        lines = text.split("\n")
        last = lines.pop()
        if last.rstrip("\r") == EOF:
            lines.append(last)
        elif last:
            self._trouble(
                len(lines) + 1, f"the text ends within the line {shortened(last)}; nothing of it is used"
            )
        return lines

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as wrong:
            line = raw.count(b"\n", 0, wrong.start) + 1
            self._trouble(line, "holds bytes that are no UTF-8; they are read as U+FFFD", lost=False)
            return raw.decode(errors="replace")

    def _other(self, number: int, line: str) -> None:
        """A line that is no repetition: a comment, a new name, one with a timestamp, or garbage."""
        bare = line.strip(" \t\r")
        if not bare:
            self.other_lines.append(number)
        elif bare[0] == "#":
            self.other_lines.append(number)
            self._comment(number, bare)
        elif self.ended:
            self._refused(number, "stands behind # EOF")
        else:
            try:
                key, digits, stamp = self._known_with_stamp(bare) or divided(bare)
                metric, value = self.parser.metric(key), number_in(digits)
                if stamp:
                    number_in(stamp)
            except ValueError as wrong:
                self._refused(number, f"{wrong}: {shortened(bare)}")
                return
            if stamp:
                self.stamps[len(self.metrics)] = stamp
            self.metrics.append(metric)
            self.values.append(value)

    def _known_with_stamp(self, line: str) -> tuple[str, str, str] | None:
        """As `divided`, for a repetition that carries its instant."""
        head, _, stamp = line.rpartition(" ")
        key, _, digits = head.rpartition(" ")
        return (key, digits, stamp) if key in self.parser._known else None

    def _refused(self, number: int, why: str) -> None:
        self.other_lines.append(number)
        self._trouble(number, why)

    def _comment(self, number: int, line: str) -> None:
        if line == EOF:
            if self.ended:
                self._trouble(number, "says # EOF a second time", lost=False)
            self.ended = True
            return
        found = self.parser.comment(line)
        if found is None:
            return
        keyword, name, text = found
        before = self.announced.get(name, Announced())
        if keyword == "UNIT" and self.openmetrics is None:
            self.openmetrics = True
        self.announced[name] = Announced(
            type=text if keyword == "TYPE" else before.type,
            help=text if keyword == "HELP" else before.help,
            unit=text if keyword == "UNIT" else before.unit,
        )

    def _finish(self, lines: Sequence[str]) -> None:
        if self.openmetrics and not self.ended:
            self._trouble(len(lines), "the text ends without # EOF: what followed is missing")
        if not self.ended and self.metrics:
            number = next((n for n in range(len(lines), 0, -1) if lines[n - 1].strip(" \t\r")), 0)
            last = lines[number - 1].strip(" \t\r") if number else ""
            if not last.startswith("#") and CUT_EXPONENT.search(last) and number not in self.other_lines[-1:]:
                self.metrics.pop()
                self.values.pop()
                self.stamps.pop(len(self.metrics), None)
                self.other_lines.append(number)
                self._trouble(
                    number, f"the text ends within a number, {last.rpartition(' ')[2]}; it is not used"
                )
        if len(set(self.metrics)) < len(self.metrics):
            self._drop_repetitions()

    def _drop_repetitions(self) -> None:
        """Of lines that say the same name, labels and instant twice, the first holds."""
        whole = Scrape(metrics=self.metrics, values=self.values, other_lines=self.other_lines)
        first: dict[tuple[Metric, str], int] = {}
        kept: list[int] = []
        dropped: list[int] = []
        for place, metric in enumerate(self.metrics):
            holder = first.setdefault((metric, self.stamps.get(place, "")), place)
            if holder == place:
                kept.append(place)
                continue
            line = whole.line_of(place)
            dropped.append(line)
            if self.values[place] != self.values[holder]:
                self._trouble(
                    line,
                    f"{metric.name} stands in line {whole.line_of(holder)} already, with"
                    f" {self.values[holder]:g} instead of {self.values[place]:g}; the first holds",
                    lost=False,
                )
        self.stamps = {new: self.stamps[old] for new, old in enumerate(kept) if old in self.stamps}
        self.metrics[:] = [self.metrics[place] for place in kept]
        self.values[:] = [self.values[place] for place in kept]
        self.other_lines[:] = sorted([*self.other_lines, *dropped])

    def _stamps_ms(self) -> dict[int, int]:
        """OpenMetrics writes seconds, Prometheus milliseconds. An instant that no calendar has is said and left out."""
        seconds = self.openmetrics or (self.openmetrics is None and self.ended)
        found: dict[int, int] = {}
        for place, stamp in self.stamps.items():
            stamp_ms = float(stamp) * (1000 if seconds or "." in stamp else 1)
            if 0 <= stamp_ms <= STAMP_MS_MAX:
                found[place] = round(stamp_ms)
            else:
                whole = Scrape(metrics=self.metrics, values=self.values, other_lines=self.other_lines)
                self._trouble(
                    whole.line_of(place), f"{stamp} is no instant; the sample counts as read now", lost=False
                )
        return found

    def _trouble(self, line: int, sentence: str, *, lost: bool = True) -> None:
        self.whole = self.whole and not lost
        if len(self.troubles) >= TROUBLES_MAX:
            self.untold += 1
            return
        where = f"{self.source}: line {line}" if self.source else f"line {line}"
        self.troubles.append(Trouble(source=where, key=None, field=None, sentence=sentence))

    def _told(self) -> Iterator[Trouble]:
        yield from self.troubles
        if self.untold:
            yield Trouble(
                source=self.source or "text",
                key=None,
                field=None,
                sentence=f"{self.untold} more lines like these",
            )


def divided(line: str) -> tuple[str, str, str]:
    """`name{labels}`, number and timestamp ("" where there is none) of a line. Raises ValueError for anything else."""
    end = _key_end(line, 0)
    words = line[end:].partition(" # ")[0].split()  # an exemplar is passed over
    if not words:
        raise ValueError("no number")
    if len(words) > 2:
        raise ValueError("more than number and timestamp")
    return line[:end], words[0], words[1] if len(words) == 2 else ""


def number_in(digits: str) -> float:
    """A number as the format writes it. Raises ValueError for what only Python takes for one."""
    if "_" in digits or not digits.isascii():
        raise ValueError(f"{shortened(digits)} is no number")
    try:
        return float(digits)
    except ValueError:
        raise ValueError(f"{shortened(digits)} is no number") from None


def metric_of(key: str) -> Metric:
    """A `name{labels}` taken apart. Raises ValueError when it is none."""
    labels: dict[str, str] = {}
    found = NAME.match(key)
    name = found[0] if found else ""
    at = found.end() if found else 0
    at = _skip(key, at)
    if at < len(key):
        at = _skip(key, at + 1)
        quoted = QUOTED.match(key, at)
        if not name and quoted and key[_skip(key, quoted.end()) : _skip(key, quoted.end()) + 1] in (",", "}"):
            name = unescaped(quoted[1])
            at = _skip(key, quoted.end())
            at += key[at] == ","
        while _skip(key, at) < len(key) - 1:
            label = LABEL.match(key, at)
            if label is None:
                raise ValueError(f"no label at {shortened(key[at:])}")
            labels[label[1] or unescaped(label[2])] = unescaped(label[3])
            at = label.end()
            at += key[at] == ","
    if not name:
        raise ValueError("no name")
    return Metric(name, labels, {label.lower(): value for label, value in labels.items()})


def _key_end(line: str, start: int) -> int:
    """Where `name{labels}` ends. Raises ValueError when the braces are open or the name is none."""
    found = NAME.match(line, start)
    at = _skip(line, found.end() if found else start)
    if at >= len(line) or line[at] != "{":
        if found is None:
            raise ValueError("no name")
        if found.end() < len(line) and line[found.end()] not in " \t":
            raise ValueError("no name")
        return found.end()
    at += 1
    while at < len(line):
        if line[at] == "}":
            return at + 1
        if line[at] == '"':
            quoted = QUOTED.match(line, at)
            if quoted is None:
                break
            at = quoted.end()
        else:
            at += 1
    raise ValueError("labels without an end")


def _skip(text: str, at: int) -> int:
    found = BLANKS.match(text, at)
    return found.end() if found else at


ESCAPES: Mapping[str, str] = {"n": "\n", "\\": "\\", '"': '"'}


def unescaped(text: str) -> str:
    r"""A label's value as it was meant: `\n`, `\"` and `\\` undone, any other backslash left as it is."""
    if "\\" not in text:
        return text
    return ESCAPE.sub(lambda found: ESCAPES.get(found[1], found[0]), text)


def comment_of(line: str) -> tuple[str, str, str] | None:
    """Keyword, name and text of a HELP, TYPE or UNIT line; None for any other comment."""
    found = COMMENT.fullmatch(line)
    if found is None:
        return None
    keyword, quoted, name, text = found.groups(default="")
    return keyword, name or unescaped(quoted), unescaped(text) if keyword == "HELP" else text.strip()


def shortened(text: str, chars: int = 80) -> str:
    """The beginning of a text of others, as a sentence may quote it."""
    return repr(text if len(text) <= chars else text[:chars] + "…")
