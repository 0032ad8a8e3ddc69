"""What the source of the pages says: every msgid of templates and code."""

import io
from collections.abc import Iterator
from pathlib import Path

from babel.messages.extract import extract
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

import baseai.web
from baseai.web.language import FOLDER

HERE = Path(baseai.web.__file__).parent
TEMPLATES = tuple(sorted((HERE / "templates").rglob("*.html")))

Msgid = str | tuple[str, ...]


def msgids() -> tuple[Msgid, ...]:
    """Each once, in the order of the source; a plural as (singular, plural)."""
    return tuple(dict.fromkeys(_said()))


def _said() -> Iterator[Msgid]:
    options = {"trimmed": "false", "newstyle_gettext": "true", "trim_blocks": "true", "lstrip_blocks": "true"}
    for path in TEMPLATES:
        with path.open("rb") as source:
            for _, _, msgid, _ in babel_extract(source, ("gettext", "ngettext", "_"), (), options):
                if msgid is not None:  # a code's phrase, found where it stands in the code
                    yield _plain(msgid)
    for path in sorted(HERE.glob("*.py")):
        source = io.BytesIO(path.read_bytes())
        for _, msgid, _, _ in extract("python", source, keywords={"N_": None, "say": None}):
            yield _plain(msgid)


def _plain(msgid: str | tuple[str | None, ...] | list[str | None]) -> Msgid:
    if isinstance(msgid, str):
        return msgid
    texts = tuple(text for text in msgid if text is not None)
    return texts if len(texts) > 1 else texts[0]


def translations(locale: str) -> dict[Msgid, str | tuple[str, ...]]:
    """What the catalogue of a locale has for each msgid, fuzzy ones left out."""
    with (FOLDER / locale / "LC_MESSAGES" / "web.po").open("rb") as source:
        catalogue = read_po(source, locale=locale)
    return {message.id: message.string for message in catalogue if message.id and not message.fuzzy}
