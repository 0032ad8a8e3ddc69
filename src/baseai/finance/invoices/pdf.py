"""A PDF is a written document on A4 pages: text in Helvetica, which every reader has, so that nothing is embedded.

Invariant: equal documents give equal bytes; there is no clock and no chance in them. Text is Windows-1252, which has
all that Portuguese and English need; a character that it lacks becomes a question mark and nothing breaks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from baseai.finance.invoices.written import Written, WrittenLine

WIDTH, HEIGHT, MARGIN = 595, 842, 42  # points of 1/72 inch
LEADING = 1.35
# Widths of Helvetica for the characters from space to tilde, in thousandths of its size (Adobe's metrics).
_WIDTHS = """
278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556
556 556 278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778
667 778 722 667 611 722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556
556 222 222 500 222 833 556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584
"""
WIDTHS = dict(zip(map(chr, range(32, 127)), map(int, _WIDTHS.split()), strict=True)) | {"\u00a0": 278}
BOLDER = 1.07
WIDEST = 700  # what else there is: accented letters are no wider than most capitals
# Where columns of lines begin, and whether they end there instead.
COLUMNS = (
    (MARGIN, False),
    (MARGIN + 24, False),
    (336, True),
    (344, False),
    (484, True),
    (WIDTH - MARGIN, True),
)
WHAT_WIDTH = 212
BEHIND = (
    (MARGIN + 12, False),
    (MARGIN + 170, False),
    (MARGIN + 290, False),
    (450, True),
    (WIDTH - MARGIN, True),
)


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """In points. Bold letters are a little wider; digits are not."""
    widths = (WIDTHS.get(char, WIDEST) * (BOLDER if bold and char.isalpha() else 1) for char in text)
    return sum(widths) * size / 1000


def pdf_of(document: Written) -> bytes:
    """The document as a PDF 1.4 file."""
    sheet = _Sheet()
    words = document.language.words
    sheet.text(document.title, size=18, bold=True)
    if document.banner:
        sheet.text(document.banner, size=10, bold=True)
    sheet.gap(6)
    for heading, said in ((words["from"], document.issuer), (words["to"], document.customer)):
        sheet.text(heading, size=9, bold=True)
        for line in said:
            sheet.text(line)
        sheet.gap(5)
    for name, value in document.facts:
        sheet.row(((MARGIN, False), (MARGIN + 130, False)), (name, value))
    sheet.gap(8)
    heads = [words[name] for name in ("line", "what", "quantity", "unit", "unit_price", "value")]
    sheet.row(COLUMNS, heads, size=8, bold=True)
    sheet.rule()
    for one in document.lines:
        _line(sheet, one)
    sheet.rule()
    sheet.row((COLUMNS[0], COLUMNS[-1]), (words["total"], document.total), size=11, bold=True)
    sheet.gap(8)
    for note in document.notes:
        for part in folded(note, WIDTH - 2 * MARGIN, 8):
            sheet.text(part, size=8)
    sheet.gap(10)
    sheet.text(words["behind"], size=11, bold=True)
    for one in document.lines:
        _behind(sheet, document, one)
    return _file(sheet.finished(), title=document.title, language=document.language.tag)


def folded(text: str, width: float, size: float) -> Iterator[str]:
    """The text in lines that are no wider; a word that alone is wider stands alone."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size) > width:
            yield line
            line = word
        else:
            line = longer
    yield line


def _line(sheet: "_Sheet", one: WrittenLine) -> None:
    first, *more = folded(one.what, WHAT_WIDTH, 8)
    if one.note:
        more += folded(one.note, WHAT_WIDTH, 8)
    sheet.row(COLUMNS, (one.line_no, first, one.quantity, one.unit, one.unit_price, one.amount), size=8)
    for part in more:
        sheet.row(COLUMNS[1:2], (part,), size=8)


def _behind(sheet: "_Sheet", document: Written, one: WrittenLine) -> None:
    words = document.language.words
    sheet.gap(4)
    heading = f"{words['line']} {one.line_no} · {words['exact']} {one.exact}"
    sheet.text(heading, size=8, bold=True)
    if not one.behind:
        sheet.row(BEHIND[:1], (words["none"],), size=7)
        return
    heads = [words[name] for name in ("run", "lease", "serial", "quantity", "exact")]
    sheet.row(BEHIND, heads, size=7, bold=True)
    for part in one.behind:
        sheet.row(BEHIND, (part.run, part.lease, part.serial, part.quantity, part.exact), size=7)


@dataclass(slots=True)
class _Sheet:
    """Pages being filled from above; a line that finds no room begins another page."""

    pages: list[list[str]] = field(default_factory=lambda: [[]])
    at: float = HEIGHT - MARGIN

    def text(self, text: str, *, size: float = 9, bold: bool = False) -> None:
        self.row(((MARGIN, False),), (text,), size=size, bold=bold)

    def row(
        self,
        columns: Sequence[tuple[float, bool]],
        cells: Sequence[str],
        *,
        size: float = 9,
        bold: bool = False,
    ) -> None:
        self._room(size * LEADING)
        font = "F2" if bold else "F1"
        for (x, ends), text in zip(columns, cells, strict=True):
            if text:
                left = x - text_width(text, size, bold=bold) if ends else x
                self.pages[-1].append(
                    f"BT /{font} {size:g} Tf {left:.2f} {self.at:.2f} Td ({_escaped(text)}) Tj ET"
                )

    def rule(self) -> None:
        self._room(4)
        self.pages[-1].append(f"0.5 w {MARGIN} {self.at:.2f} m {WIDTH - MARGIN} {self.at:.2f} l S")

    def gap(self, points: float) -> None:
        self.at -= points

    def finished(self) -> list[list[str]]:
        """The pages, each with its number."""
        count = len(self.pages)
        for number, page in enumerate(self.pages, start=1):
            said = f"{number}/{count}"
            left = WIDTH - MARGIN - text_width(said, 8)
            page.append(f"BT /F1 8 Tf {left:.2f} {MARGIN - 18} Td ({said}) Tj ET")
        return self.pages

    def _room(self, points: float) -> None:
        if self.at - points < MARGIN:
            self.pages.append([])
            self.at = HEIGHT - MARGIN
        self.at -= points


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _file(pages: Sequence[Sequence[str]], *, title: str, language: str) -> bytes:
    """Objects, one after the other, and where each begins."""
    first_page = 6
    kids = " ".join(f"{first_page + 2 * n} 0 R" for n in range(len(pages)))
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /{} /Encoding /WinAnsiEncoding >>"
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R /Lang ({language}) /ViewerPreferences << /DisplayDocTitle true >> >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        font.format("Helvetica"),
        font.format("Helvetica-Bold"),
        f"<< /Title ({_escaped(title)}) /Producer (baseai) >>",
    ]
    for number, page in enumerate(pages):
        content = "\n".join(page)
        size = len(_bytes(content))
        holds = f"/MediaBox [0 0 {WIDTH} {HEIGHT}] /Contents {first_page + 2 * number + 1} 0 R"
        fonts = "/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {holds} {fonts} >>")
        objects.append(f"<< /Length {size} >>\nstream\n{content}\nendstream")
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += _bytes(f"{number} 0 obj\n{body}\nendobj\n")
    start = len(out)
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    out += _bytes(
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R"
        f" /Info 5 0 R >>\nstartxref\n{start}\n%%EOF\n"
    )
    return bytes(out)


def _bytes(text: str) -> bytes:
    return text.encode("cp1252", "replace")
