"""A model, as a spec names it: where its bytes come from, and which bytes they must be.

Invariant: what is written says by itself where to look; nothing is guessed from what happens to lie on a node. Read
by `model_source_of`; brought to a replica's node by `inference/model_source.py`; nobody changes it.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["run", "path", "s3", "hf", "pkg", "python"]

FORMS = "run:NAME, a path, s3://bucket/key, hf:org/name, pkg:package:path/inside or python:file.py:name"

_RUN = re.compile(r"^[A-Za-z0-9][-A-Za-z0-9_]{0,127}$")
_HUB = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}(@[\w.-]{1,96})?$")
_PACKAGE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
_NAME = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where one model comes from."""

    kind: Kind
    place: str  # a run's name, a path, a URI, `org/name`, a package, a Python file
    inside: str | None = (
        None  # of a run's output or a package: the path in it; of a Python file: the callable's name
    )
    revision: str | None = None  # of a repository of a hub
    sha256: str | None = None  # what its digest must be; None where the spec leaves it open

    @property
    def written(self) -> str:
        """As a spec has it: `model_source_of` gives the equal source back."""
        scheme = "" if self.kind in ("path", "s3") else f"{self.kind}:"
        inside = "" if self.inside is None else f":{self.inside}"
        revision = "" if self.revision is None else f"@{self.revision}"
        digest = "" if self.sha256 is None else f"#sha256={self.sha256}"
        return f"{scheme}{self.place}{inside}{revision}{digest}"

    @property
    def is_onnx(self) -> bool:
        path = self.place if self.kind in ("path", "s3", "hf") else self.inside
        return path is not None and path.lower().endswith(".onnx")


def model_source_of(written: str) -> ModelSource:
    """`pkg:magika:models/x/model.onnx`, with `#sha256=…` behind any of the forms.

    Raises ValueError as `what is wrong; the fix`.
    """
    text, mark, wanted = written.strip().partition("#sha256=")
    sha256 = wanted.lower() if mark else None
    if sha256 is not None and not _SHA256.match(sha256):
        raise ValueError(f"`{wanted}` is no SHA-256; write its 64 hexadecimal digits behind #sha256=")
    scheme, colon, rest = text.partition(":")
    if not text:
        raise ValueError(f"names no model; write {FORMS}")
    if colon and scheme == "run":
        place, further, inside = rest.partition(":")
        if not _RUN.match(place) or (further and not _is_inside(inside)):
            raise ValueError(f"`{rest}` is no run; write run:NAME, or run:NAME:path in what that run made")
        return ModelSource(kind="run", place=place, inside=inside or None, sha256=sha256)
    if colon and scheme == "hf":
        if not _HUB.match(rest):
            raise ValueError(f"`{rest}` is no repository; write hf:org/name, with @revision for a fixed one")
        place, _, revision = rest.partition("@")
        return ModelSource(kind="hf", place=place, revision=revision or None, sha256=sha256)
    if colon and scheme == "pkg":
        place, _, inside = rest.partition(":")
        if not _PACKAGE.match(place) or not _is_inside(inside):
            raise ValueError(f"`{text}` names no file of a package; write pkg:package:path/inside")
        return ModelSource(kind="pkg", place=place, inside=inside, sha256=sha256)
    if colon and scheme == "python":
        place, _, inside = rest.rpartition(":")
        if not place.endswith(".py") or not _NAME.match(inside) or not _is_path(place):
            raise ValueError(f"`{text}` names no callable; write python:file.py:name")
        return ModelSource(kind="python", place=place, inside=inside, sha256=sha256)
    if text.startswith("s3://"):
        if not re.match(r"^s3://[^/\s]+/\S+$", text):
            raise ValueError(f"`{text}` names no object; write s3://bucket/key")
        return ModelSource(kind="s3", place=text, sha256=sha256)
    if "://" in text or (colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme)):
        raise ValueError(f"`{scheme}:` is not a place that models come from; write {FORMS}")
    if not _is_path(text):
        raise ValueError(
            f"`{text}` leaves the run's folder; bring the model with `files`, or write its path on the node from /"
        )
    return ModelSource(kind="path", place=text, sha256=sha256)


def _is_path(written: str) -> bool:
    """Absolute on the node, or below the run's folder."""
    parts = PurePosixPath(written).parts
    return bool(parts) and ".." not in parts and not written.startswith("~") and "\0" not in written


def _is_inside(written: str) -> bool:
    return _is_path(written) and not written.startswith("/")
