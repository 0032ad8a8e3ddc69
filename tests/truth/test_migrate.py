"""Migrations run once whoever starts first, and a database that will not do is refused in a sentence."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from baseai.ground.identity import mint
from baseai.truth.embedded import Embedded
from baseai.truth.migrate import DatabaseUnfit, look_at, migrate
from baseai.truth.session import TruthUnavailable


@pytest.fixture
def empty(embedded: Embedded) -> Iterator[str]:
    """The DSN of a database without a table."""
    admin = f"host={embedded.sockets} user=postgres dbname=postgres"
    name = mint("db").lower()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        connection.execute(
            "DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    yield f"host={embedded.sockets} user=postgres dbname={name}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_many_may_migrate_at_once(empty: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [empty] * 4))
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM moves WHERE noun = 'lease'").fetchone() == (7,)
    migrate(empty)


def test_a_role_that_may_not_make_tables_is_told_so(empty: str) -> None:
    with pytest.raises(DatabaseUnfit, match="the database cannot be used: permission denied"):
        migrate(empty.replace("user=postgres", "user=guest"))


def test_a_database_that_is_away_may_come_back(empty: str) -> None:
    away = empty.replace("dbname=", "dbname=no")
    with pytest.raises(TruthUnavailable) as caught:
        migrate(away)
    assert caught.value.retryable
    with pytest.raises(DatabaseUnfit, match="does not exist"):
        look_at(away)
    look_at(empty)


@pytest.mark.parametrize(
    "dsn", ["nonsense=1", "postgresql://x@127.0.0.1:1/x", "postgresql://x@127.0.0.1:none/x"]
)
def test_what_names_no_database_is_refused_in_one_line(dsn: str) -> None:
    with pytest.raises(DatabaseUnfit) as caught:
        look_at(dsn)
    assert "\n" not in str(caught.value)


def test_the_unmetered_leases_have_an_index_of_their_own(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'leases_unmetered'"
        ).fetchone()
    assert found is not None
    assert "observed_until IS NOT NULL" in found[0]
