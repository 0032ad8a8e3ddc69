"""An invoice as one HTML page that stands alone: no script, no request, the runs and serials folded behind each line.

Invariant: every word comes from the written document; markup is escaped, whoever chose a name.
"""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from baseai.finance.invoices.written import Written


def page_of(document: Written) -> str:
    """The page as text."""
    return _template().render(w=document, words=document.language.words)


@cache
def _template() -> Template:
    text = files("baseai.finance.invoices").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
