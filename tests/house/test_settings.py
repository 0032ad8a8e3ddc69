"""Every setting is documented: meaning and default, on a page that is written from the source."""

import pytest

from tests.house.source import PACKAGE, ROOT
from tools.settings_page import Group, groups, groups_of, page

FOUND = groups(PACKAGE)


@pytest.mark.parametrize("group", FOUND, ids=[group.name for group in FOUND])
def test_every_setting_says_what_it_means(group: Group) -> None:
    assert group.meaning
    assert [field.name for field in group.fields if not field.meaning] == []


def test_the_page_is_the_source() -> None:
    if not FOUND:
        pytest.skip("no settings yet")
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == page(FOUND), "run: python tools/settings_page.py"


def test_a_field_is_read_with_its_comment_and_its_default() -> None:
    text = '''
@dataclass(frozen=True)
class AgentSettings:
    """How an agent waits."""

    poll_s: float = 20.0  # longest wait of one question, seconds
    # Where runs live;
    # made when missing.
    folder: Path | None
    silent: str = "#"
'''
    [group] = groups_of("agent.loop", text)
    assert [(field.name, field.default, field.meaning) for field in group.fields] == [
        ("poll_s", "20.0", "longest wait of one question, seconds"),
        ("folder", None, "Where runs live; made when missing."),
        ("silent", "'#'", ""),
    ]
    assert "| `folder` | `Path \\| None` | must be given | Where runs live; made when missing. |" in page(
        [group]
    )
