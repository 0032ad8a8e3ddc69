"""A migration brings the tables to this version's shape, once, whoever starts first.

Invariant: migrations run under an advisory lock and in a transaction each; starting twice is the same as once.
"""

import logging
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from baseai.truth.session import TruthUnavailable

LOCK = 0x62617365  # "base"
FOLDER = Path(__file__).parent / "migrations"


def migrate(dsn: str) -> None:
    """Bring the database at `dsn` to the newest revision. Raises TruthUnavailable when it cannot be reached."""
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
    except psycopg.OperationalError as wrong:
        raise TruthUnavailable(str(wrong).strip().splitlines()[0]) from wrong
    finally:
        engine.dispose()
