"""A sheet is a YAML file read with the place of every key, and the list of everything wrong with it.

Invariant: reading never stops at the first error and never builds anything the text did not spell out: no tags,
no merge keys, no second value for one key, no more than `NODES_MOST` values however aliases multiply them.
A reader that finds a wrong value notes it and goes on with what stands in for it; the caller raises at the end.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import yaml

from baseai.ground.fault import Fault

BYTES_MOST = 1 << 20
NODES_MOST = 20_000  # values in the file, aliases counted each time they are used
DEPTH_MOST = 32

# The C loader where PyYAML was built with it: the same grammar, twenty times the speed.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
_TAG = "tag:yaml.org,2002:"

Parsed = TypeVar("Parsed")
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Value = yaml.ScalarNode | yaml.SequenceNode | yaml.MappingNode


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecError:
    """One thing wrong with a spec: where it stands, what it is, and what to write instead."""

    file: str
    line: int  # from 1
    column: int  # from 1
    key: str  # the path to it, `resources.gpu`; empty for the file as a whole
    message: str
    fix: str

    def __str__(self) -> str:
        about = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}:{self.column}: {about}{self.message}; {self.fix}"


class BadSpec(Fault):
    """A spec that cannot be taken, with everything found wrong in it; nothing was created."""

    def __init__(self, errors: tuple[SpecError, ...]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class Entries:
    """The keys of one mapping of the sheet. Every reader names the key it wants and says what else may stand."""

    def __init__(self, sheet: "Sheet", node: yaml.MappingNode, path: str) -> None:
        self.sheet = sheet
        self.node = node
        self.path = path
        self.values: dict[str, Value] = {}
        self.keys: dict[str, yaml.ScalarNode] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                sheet.wrong(key, path, "a key must be a plain word", "write `key: value`")
            elif key.tag == _TAG + "merge":
                sheet.wrong(key, self.at(key.value), "merge keys are not taken", "write the keys out")
            elif key.value in self.values:
                first = self.keys[key.value].start_mark.line + 1
                sheet.wrong(
                    key, self.at(key.value), f"stands twice, first on line {first}", "keep one of them"
                )
            else:
                self.values[key.value] = value
                self.keys[key.value] = key

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def at(self, key: str) -> str:
        """The path of a key of this mapping."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, message: str, fix: str) -> None:
        """Note an error at `key`, at its value where it has one."""
        self.sheet.wrong(self.values.get(key, self.node), self.at(key), message, fix)

    def only(self, known: Collection[str], refused: Mapping[str, str] | None = None) -> None:
        """Refuse every key not in `known`: by the sentence `refused` has for it, else by the nearest known one."""
        for key, node in self.keys.items():
            if key in known:
                continue
            if refused and key in refused:
                message, _, fix = refused[key].partition("; ")
                self.sheet.wrong(node, self.at(key), message, fix)
                continue
            near = difflib.get_close_matches(key, [*known, *(refused or ())], n=1, cutoff=0.6)
            fix = f"did you mean `{near[0]}`?" if near else f"known keys here: {', '.join(sorted(known))}"
            if refused and near and near[0] in refused:
                fix += f" It {refused[near[0]]}"
            self.sheet.wrong(node, self.at(key), "unknown key", fix)

    def text(self, key: str) -> str | None:
        """A scalar as it is written, so that `on`, `1:30` and `3.10` stay what they are."""
        node = self.values.get(key)
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or is_null(node):
            self.wrong(key, "needs one value", f"write `{key}: …`")
            return None
        return str(node.value)

    def parsed(self, key: str, parse: Callable[[str | int | float], Parsed]) -> Parsed | None:
        """A scalar through `parse`, whose ValueError says `what is wrong; the fix`. Bare numbers come as numbers."""
        if self.text(key) is None:
            return None
        node = self.values[key]
        assert isinstance(node, yaml.ScalarNode)
        try:
            return parse(number_or_text(node))
        except ValueError as error:
            message, _, fix = str(error).partition("; ")
            self.wrong(key, message, fix or "see the documentation of this key")
            return None

    def whole(self, key: str, least: int, most: int) -> int | None:
        """A whole number between two bounds, both included."""

        def bounded(value: str | int | float) -> int:
            if not isinstance(value, int) or not least <= value <= most:
                nearest = most if isinstance(value, (int, float)) and value > most else least
                raise ValueError(
                    f"{value!r} is not a whole number from {least} to {most}; write `{key}: {nearest}`"
                )
            return value

        return self.parsed(key, bounded)

    def truth(self, key: str) -> bool | None:
        """`true` or `false`."""
        node = self.values.get(key)
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "bool":
            return bool(node.value.lower() in ("true", "yes", "on"))
        return None

    def mapping(self, key: str) -> "Entries | None":
        """A mapping below this one."""
        node = self.values.get(key)
        if node is None:
            return None
        if not isinstance(node, yaml.MappingNode):
            self.wrong(key, "needs keys of its own", f"write them indented below `{key}:`")
            return None
        return Entries(self.sheet, node, self.at(key))

    def texts(self, key: str, *, one: bool = False) -> tuple[tuple[str, Value], ...] | None:
        """A list of scalars as written, each with its place; with `one`, a single scalar counts as a list."""
        node = self.values.get(key)
        if node is None:
            return None
        if one and isinstance(node, yaml.ScalarNode) and not is_null(node):
            return ((str(node.value), node),)
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(key, "needs a list", f"write each on a line of its own below `{key}:`, after a dash")
            return None
        items: list[tuple[str, Value]] = []
        for number, item in enumerate(node.value):
            if isinstance(item, yaml.ScalarNode) and not is_null(item):
                items.append((str(item.value), item))
            else:
                self.sheet.wrong(
                    item, f"{self.at(key)}[{number}]", "needs one value", "write plain text after the dash"
                )
        return tuple(items)


class Sheet:
    """One file: its name, its top mapping, and the errors noted so far."""

    def __init__(self, text: str, file: str) -> None:
        """Read `text`. Raises BadSpec at once where it is no YAML mapping, or too large to look at."""
        self.file = file
        self.errors: list[SpecError] = []
        root = self._composed(text)
        if not isinstance(root, yaml.MappingNode):
            self._refuse(1, 1, "is not a spec", "start with `type: task`, `type: train` or `type: service`")
        self.top = Entries(self, root, "")

    def wrong(self, node: yaml.Node, key: str, message: str, fix: str) -> None:
        """Note an error at `node`."""
        mark = node.start_mark
        self.errors.append(
            SpecError(
                file=self.file, line=mark.line + 1, column=mark.column + 1, key=key, message=message, fix=fix
            )
        )

    def raise_errors(self) -> None:
        """Raise BadSpec with everything noted, in the order of the file; nothing where nothing was noted."""
        if self.errors:
            ordered = sorted(set(self.errors), key=lambda error: (error.line, error.column, error.key))
            raise BadSpec(tuple(ordered))

    def _refuse(self, line: int, column: int, message: str, fix: str) -> NoReturn:
        raise BadSpec(
            (SpecError(file=self.file, line=line, column=column, key="", message=message, fix=fix),)
        )

    def _composed(self, text: str) -> yaml.Node | None:
        if len(text.encode(errors="replace")) > BYTES_MOST:
            self._refuse(
                1, 1, f"is larger than {BYTES_MOST >> 20} MiB", "a spec is a page; move data into `files`"
            )
        try:
            depth = 0
            for event in yaml.parse(text, Loader=_Loader):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                    event, yaml.CollectionEndEvent
                )
                if depth > DEPTH_MOST:
                    line = 1 if event.start_mark is None else event.start_mark.line + 1
                    self._refuse(line, 1, f"is nested more than {DEPTH_MOST} deep", "flatten it")
            root: yaml.Node | None = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
            self._refuse(
                *place, f"is not YAML: {error.problem}", "check indentation, quotes and colons there"
            )
        except (yaml.YAMLError, UnicodeError) as error:
            self._refuse(1, 1, f"is not YAML: {str(error).splitlines()[0]}", "save it as plain UTF-8 text")
        if root is not None and _size(root, {}) > NODES_MOST:
            self._refuse(
                1, 1, f"holds more than {NODES_MOST} values", "use fewer aliases, or move data into `files`"
            )
        return root


def number_or_text(node: yaml.ScalarNode) -> str | int | float:
    """A bare number as a number, anything else as written. `1e-3` is a number here, whatever YAML 1.1 says."""
    text = str(node.value)
    if not node.style:  # plain, however the loader says it
        if re.fullmatch(r"[-+]?\d{1,18}", text):
            return int(text)
        if _FLOAT.match(text):
            return float(text)
    return text


def is_null(node: yaml.ScalarNode) -> bool:
    """Whether a value was left out, or written as null."""
    return bool(node.tag == _TAG + "null")


def plain(node: yaml.Node) -> Plain:
    """The value as plain Python: for keys that another part of the program understands."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    if is_null(node):
        return None
    if node.tag == _TAG + "bool":
        return bool(node.value.lower() in ("true", "yes", "on"))
    return number_or_text(node)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values the tree below `node` comes to with its aliases written out."""
    size = known.get(id(node))
    if size is None:
        known[id(node)] = NODES_MOST + 1  # an alias to what it stands in never ends
        below = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in below for part in (item if isinstance(item, tuple) else (item,)))
        size = known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return size
