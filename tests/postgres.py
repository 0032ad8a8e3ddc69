"""A real PostgreSQL for tests: one embedded server a test process, one fresh migrated database a test."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from baseai.truth.embedded import Embedded, as_postgres, prepare, wait_ready
from baseai.truth.migrate import migrate


@contextmanager
def server() -> Iterator[Embedded]:
    """An embedded server without durability, with a migrated template database."""
    folder = Path(tempfile.mkdtemp(prefix="baseai-pg-", dir="/tmp"))
    os.chmod(folder, 0o755)  # the server's account must be able to pass
    embedded = prepare(folder / "postgres", folder / "s", durable=False)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(embedded.command(), stdout=log, stderr=log, **as_postgres())  # type: ignore[call-overload]
    try:
        wait_ready(embedded, lambda: child.poll() is None)
        migrate(embedded.dsn)
        yield embedded
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(embedded: Embedded, name: str) -> Iterator[str]:
    """The DSN of a fresh copy of the migrated database."""
    admin = f"host={embedded.sockets} user=postgres dbname=postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE baseai")  # type: ignore[arg-type]
    try:
        yield f"host={embedded.sockets} user=postgres dbname={name}"
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
