"""A session is one transaction on the truth, in a scope: a tenant's, or the platform's own.

Invariant: every transaction runs as the service role with its scope set, so that row-level security holds
even for a query that forgot its WHERE. No network call is made inside a transaction.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from baseai.ground.fault import Fault, Refused

SERVICE_ROLE = "baseai_service"
# Text that is none to PostgreSQL (half a character) and numbers beyond its own are the asker's, not a bug; so is a zero
# byte, which psycopg refuses itself, with the bare class.
UNKEEPABLE = (
    psycopg.errors.CharacterNotInRepertoire,
    psycopg.errors.UntranslatableCharacter,
    psycopg.errors.NumericValueOutOfRange,
)
Session = AsyncConnection[DictRow]

log = logging.getLogger(__name__)


class TruthUnavailable(Fault):
    """PostgreSQL gives no answer; the same call may succeed in a moment."""

    retryable = True

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the database is not answering ({self.why}); it is restarted by itself, try again in a moment"


class Overlap(Fault):
    """PostgreSQL refused a lease because the accelerator is leased at that time already."""

    retryable = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"the accelerator is already leased: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """On whose behalf a transaction reads and writes."""

    tenant_id: str | None  # None: the platform itself, which sees every tenant
    actor: str  # who is named in the events: a key's name, "controller", a node

    def setting(self) -> str:
        return self.tenant_id if self.tenant_id is not None else "*"


PLATFORM = Scope(tenant_id=None, actor="platform")


class Truth:
    """A pool of connections to one PostgreSQL database."""

    def __init__(self, dsn: str, *, connections_max: int = 8) -> None:
        self.dsn = dsn
        self._pool: AsyncConnectionPool[Session] = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=connections_max,
            open=False,
            timeout=10.0,
            kwargs={"row_factory": dict_row, "autocommit": False, "connect_timeout": 5},
            configure=_as_service,
            check=AsyncConnectionPool.check_connection,
        )

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self, scope: Scope = PLATFORM, *, snapshot: bool = False) -> AsyncIterator[Session]:
        """One transaction in `scope`; commits on leaving, rolls back on an exception.

        With `snapshot` all its statements see the database as of the first one; for reading alone.

        Raises TruthUnavailable when PostgreSQL cannot be reached, Overlap when a lease would overlap, Refused for
        text or numbers that PostgreSQL does not have.
        """
        try:
            async with self._pool.connection() as connection, connection.transaction():
                if snapshot:
                    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                await connection.execute("SELECT set_config('baseai.tenant', %s, true)", (scope.setting(),))
                yield connection
        except psycopg.DataError as wrong:
            if type(wrong) is not psycopg.DataError and not isinstance(wrong, UNKEEPABLE):
                raise
            raise Refused(f"this cannot be kept or looked for: {_first_line(wrong)}") from wrong
        except psycopg.errors.ExclusionViolation as wrong:
            raise Overlap(wrong.diag.message_detail or str(wrong)) from wrong
        except (psycopg.OperationalError, PoolTimeout) as wrong:
            raise TruthUnavailable(_first_line(wrong)) from wrong

    async def notices(self, *channels: str, heartbeat_s: float = 30.0) -> AsyncIterator[tuple[str, str]]:
        """What is told over `channels` as (channel, payload), for ever, over reconnects.

        After each (re)connection ("", "") is yielded once: what was told meanwhile is not repeated, so look.
        """
        while True:
            try:
                connection = await AsyncConnection.connect(self.dsn, autocommit=True, connect_timeout=5)
            except psycopg.OperationalError:
                await asyncio.sleep(0.5)
                continue
            async with connection:
                try:
                    for channel in channels:
                        await connection.execute(
                            psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel))
                        )
                    yield "", ""
                    while True:
                        async for notice in connection.notifies(timeout=heartbeat_s):
                            yield notice.channel, notice.payload
                        await connection.execute("SELECT 1")
                except psycopg.OperationalError as wrong:
                    log.warning("lost the line to the database: %s", _first_line(wrong))
                    await asyncio.sleep(0.2)


async def _as_service(connection: Session) -> None:
    # Session-wide, so that no statement ever runs as the owner of the tables.
    await connection.execute(f"SET ROLE {SERVICE_ROLE}")
    await connection.commit()


def _first_line(wrong: BaseException) -> str:
    lines = str(wrong).strip().splitlines()
    return lines[0] if lines else type(wrong).__name__


async def fetch_one(session: Session, query: str, params: Any = None) -> DictRow | None:
    """The first row of a query, or None."""
    return await (await session.execute(query, params)).fetchone()


async def fetch_all(session: Session, query: str, params: Any = None) -> list[DictRow]:
    """All rows of a query."""
    return await (await session.execute(query, params)).fetchall()
