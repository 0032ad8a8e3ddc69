"""The chart: every account has one line, the most literal; the database has the same chart."""

import pytest

from baseai.finance.chart import BrokenChart, Limit, chart_of, load_chart
from baseai.truth.migrations.versions import v0012_ledger
from baseai.truth.session import Truth, fetch_all

HEAD = "account,nature,currency,limit,dimensions,meaning\n"


@pytest.mark.parametrize(
    ("account", "pattern"),
    [
        pytest.param("revenue:on_demand", "revenue:on_demand", id="by its name"),
        pytest.param("revenue:tokens", "revenue:{meter}", id="by the pattern where no line has its name"),
        pytest.param("tenant:ten_1:prepaid", "tenant:{tenant}:prepaid", id="a hole stands for one part"),
        pytest.param("tenant:a:b:prepaid", None, id="and for no more than one"),
        pytest.param("tenant::prepaid", None, id="nor for nothing"),
        pytest.param("Revenue:on_demand", None, id="letters are as they are"),
        pytest.param("", None, id="no name is no account"),
    ],
)
def test_the_most_literal_line_that_fits_holds(account: str, pattern: str | None) -> None:
    line = load_chart().find(account)
    assert (line.pattern if line else None) == pattern


def test_only_what_may_be_spent_or_paid_out_has_a_limit() -> None:
    limited = {line.pattern: line.limit for line in load_chart().lines if line.limit is not Limit.NONE}
    assert limited == {"tenant:{tenant}:prepaid": Limit.DEBITS, "round:{round}:distributable": Limit.DEBITS}


def test_the_migration_writes_the_chart_that_is_shipped() -> None:
    shipped = {
        (line.pattern, line.nature.value, line.currency.value, line.limit.value)
        for line in load_chart().lines
    }
    assert set(v0012_ledger.CHART) == shipped


@pytest.mark.anyio
async def test_python_and_the_database_read_a_pattern_alike(truth: Truth) -> None:
    names = [
        "revenue:on_demand",
        "revenue:x",
        "tenant:a:prepaid",
        "tenant:a:b:prepaid",
        "cost:x",
        "cost",
        "rounding:USD",
    ]
    query = (
        "SELECT u.name, c.pattern FROM unnest(%s::text[]) AS u (name) LEFT JOIN LATERAL (SELECT pattern FROM chart"
        " WHERE u.name ~ matcher ORDER BY literal DESC, pattern LIMIT 1) c ON true"
    )
    async with truth.transaction() as session:
        rows = await fetch_all(session, query, (names,))
    lines = {name: load_chart().find(name) for name in names}
    assert {row["name"]: row["pattern"] for row in rows} == {
        name: line.pattern if line else None for name, line in lines.items()
    }


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param(
            "cost:x,costs,any,none,,", "line 2: 'costs' is not a valid Nature", id="a nature that is none"
        ),
        pytest.param(
            "cost:x,cost,any,none,rack,", "line 2: rack is no dimension", id="a dimension that is none"
        ),
        pytest.param("a,cost,any,none,,\na,cost,any,none,,", "line 3: a stands twice", id="twice the same"),
        pytest.param("cost:x,cost", "line 2", id="too few columns"),
    ],
)
def test_a_chart_that_contradicts_itself_is_refused_by_line(row: str, says: str) -> None:
    with pytest.raises(BrokenChart, match=says):
        chart_of(HEAD + row + "\n")
