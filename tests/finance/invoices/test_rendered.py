"""Documents as they are read: golden pages in both languages, a page that a screen reader can walk, a PDF that is one.

`python -m tests.finance.invoices.test_rendered` writes the golden files anew; read the difference before it is kept.
"""

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from baseai.finance.invoices.invoice import Invoice
from baseai.finance.invoices.language import EN, PT_BR, Language
from baseai.finance.invoices.page import page_of
from baseai.finance.invoices.pdf import WIDTH, pdf_of, text_width
from baseai.finance.invoices.written import written
from tests.finance.paper import billed, full_month, issue, rated

GOLDEN = Path(__file__).parent / "golden"
CASES = {"invoice.pt-BR.html": (0, PT_BR), "invoice.en.html": (0, EN), "credit_note.pt-BR.html": (1, PT_BR)}
VOID = frozenset({"meta", "br", "link", "img"})


def document(which: int = 0) -> Invoice:
    lines = billed(full_month(), originals={"rl_old": "A-000000"})
    return issue(lines)[which].invoice


def page(which: int, language: Language) -> str:
    return page_of(written(document(which), language))


@pytest.mark.parametrize("name", CASES)
def test_a_page_is_the_golden_one(name: str) -> None:
    assert page(*CASES[name]) == (GOLDEN / name).read_text(encoding="utf-8")


class Walk(HTMLParser):
    """Tags as a reader meets them; fails where they do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def test_a_page_says_its_language_heads_its_tables_and_asks_for_nothing() -> None:
    text = page(0, PT_BR)
    walk = Walk()
    walk.feed(text)
    assert walk.stack == []
    tags = [tag for tag, _ in walk.seen]
    assert ("html", {"lang": "pt-BR"}) in walk.seen
    assert tags.count("h1") == tags.count("main") == 1
    assert [tag for tag in tags if re.fullmatch("h[1-6]", tag)] == ["h1", *["h2"] * 4]
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in walk.seen if tag == "th")
    ids = {attrs["id"] for _, attrs in walk.seen if "id" in attrs}
    assert {attrs["aria-labelledby"] for _, attrs in walk.seen if "aria-labelledby" in attrs} <= ids
    assert tags.count("details") == tags.count("summary") == len(document().lines)
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert "http" not in text.replace("http-equiv", "")


def test_names_that_are_markup_are_text() -> None:
    (draft,) = issue(billed([rated("1", note="<script>alert(1)</script>")]))
    text = page_of(written(draft.invoice, PT_BR))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_a_draft_says_so_first() -> None:
    text = page_of(written(replace(document(), series=None, number=None, issued_at=None, due_on=None), PT_BR))
    assert text.index("PRÉVIA") < text.index("Emitente")


def objects_of(content: bytes) -> list[bytes]:
    """The objects of a PDF, found by its own table of places."""
    start = int(content.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    head, count = content[start:].split(b"\n")[:2]
    assert head == b"xref"
    places = re.findall(rb"(\d{10}) 00000 n ", content[start:])
    assert len(places) == int(count.split()[1]) - 1
    found = []
    for number, place in enumerate(places, start=1):
        body = content[int(place) :]
        assert body.startswith(b"%d 0 obj\n" % number)
        found.append(body.split(b"\nendobj\n", 1)[0])
    return found


@dataclass(frozen=True)
class Shown:
    """One text of a page: where it stands, and how far it reaches."""

    page: int
    y: str
    left: float
    right: float
    text: str


def shown(content: bytes) -> list[Shown]:
    found = []
    for page, stream in enumerate(content.split(b"stream\n")[1::2]):
        for font, size, x, y, raw in re.findall(
            rb"/(F\d) ([\d.]+) Tf ([\d.-]+) ([\d.-]+) Td \((.*?)\) Tj", stream
        ):
            text = re.sub(r"\\(.)", r"\1", raw.decode("cp1252"))
            width = text_width(text, float(size), bold=font == b"F2")
            found.append(Shown(page, y.decode(), float(x), float(x) + width, text))
    return found


def test_a_pdf_holds_what_the_page_holds() -> None:
    content = pdf_of(written(document(), PT_BR))
    assert content == pdf_of(written(document(), PT_BR))
    objects = objects_of(content)
    for one in objects:
        if b"stream\n" in one:
            size = int(re.findall(rb"/Length (\d+)", one)[0])
            assert len(one.split(b"stream\n", 1)[1].rsplit(b"\nendstream", 1)[0]) == size
    assert b"/Lang (pt-BR)" in content
    texts = [one.text for one in shown(content)]
    for wanted in (
        "Fatura A-000001",
        "Alfa S.A.",
        "R$\u00a03.044,49",
        "R$\u00a0658,63",
        "SN0002",
        "train-2",
        "Vencimento",
    ):
        assert wanted in texts


def test_nothing_of_a_pdf_leaves_its_page_and_long_documents_go_on() -> None:
    many = [
        rated(f"{n:04d}", price=f"1.{n:04d}1", run_id=f"run_{n}", model=f"H100-SXM-{n}") for n in range(120)
    ]
    (draft,) = issue(billed(many))
    content = pdf_of(written(draft.invoice, PT_BR))
    assert content.count(b"/Type /Page ") > 5
    texts = shown(content)
    assert {one.page for one in texts} == set(range(content.count(b"/Type /Page ")))
    for one in texts:
        assert 0 <= one.left <= one.right <= WIDTH


@pytest.mark.parametrize("language", [PT_BR, EN], ids=lambda language: language.tag)
def test_no_text_of_a_pdf_lies_on_another(language: Language) -> None:
    dear = rated(
        "z", price="123456.1234567", us=987_654_321_987, model="MI350X-OAM-288GB", site_id="equinix-sp4"
    )
    (draft, *_) = issue(billed([*full_month()[:9], dear]))
    rows: dict[tuple[int, str], list[Shown]] = defaultdict(list)
    for one in shown(pdf_of(written(draft.invoice, language))):
        rows[one.page, one.y].append(one)
    for row in rows.values():
        ordered = sorted(row, key=lambda one: one.left)
        for before, after in itertools.pairwise(ordered):
            assert before.right < after.left, (before.text, after.text)


def write_golden() -> None:
    for name, (which, language) in CASES.items():
        (GOLDEN / name).write_text(page(which, language), encoding="utf-8")


if __name__ == "__main__":
    write_golden()
