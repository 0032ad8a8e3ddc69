"""A migration brings the tables to this version's shape, once, whoever starts first.

Invariant: migrations run under an advisory lock and in a transaction each; starting twice is the same as once.
"""

import logging
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from baseai.ground.fault import Fault
from baseai.truth.session import TruthUnavailable

OLDEST = 16  # major version of PostgreSQL
LOCK = 0x62617365  # "base"
FOLDER = Path(__file__).parent / "migrations"


class DatabaseUnfit(Fault):
    """The PostgreSQL that was named cannot be the truth."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the database cannot be used: {self.why}"


def look_at(dsn: str) -> None:
    """Raises DatabaseUnfit unless a PostgreSQL answers at `dsn` that is new enough."""
    try:
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            version = connection.info.server_version
    except psycopg.Error as wrong:
        raise DatabaseUnfit(" ".join(str(wrong).split()) or type(wrong).__name__) from wrong
    if version < OLDEST * 10_000:
        raise DatabaseUnfit(f"it is PostgreSQL {version // 10_000}, and {OLDEST} is the oldest that will do")


def migrate(dsn: str) -> None:
    """Bring the database at `dsn` to the newest revision. Raises TruthUnavailable when it cannot be reached.

    Raises DatabaseUnfit when it does not let its tables be made.
    """
    for name in ("alembic", "alembic.runtime.plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK})")
            config = Config()
            config.set_main_option("script_location", str(FOLDER))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({LOCK})")
            connection.commit()
    except (psycopg.Error, DBAPIError) as wrong:
        cause = wrong.orig if isinstance(wrong, DBAPIError) else wrong
        first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        if isinstance(cause, psycopg.OperationalError):
            raise TruthUnavailable(first) from wrong
        raise DatabaseUnfit(first) from wrong
    finally:
        engine.dispose()
