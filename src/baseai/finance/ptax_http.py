"""The central bank's own service of PTAX, over HTTP: what it published of some days, as bulletins.

Invariant: what the bank says is taken as it stands or not at all. Only days that are over are asked for, so that a day
missing from the answer is one without a bulletin. Source: Olinda, `CotacaoDolarPeriodo`; dates are `'MM-DD-YYYY'`,
times are Brasília's, numbers are read as decimals.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from baseai.finance.period import ZONE
from baseai.finance.ptax import BankAway, Bulletin
from baseai.ground.fault import Refused

BANK = "https://olinda.bcb.gov.br"
PATH = "/olinda/servico/PTAX/versao/v1/odata/CotacaoDolarPeriodo(dataInicial=@a,dataFinalCotacao=@b)"
DAYS_MOST = 366
DAY = timedelta(days=1)


class CentralBank:
    """Asks the bank. base_url: where its service answers."""

    def __init__(self, base_url: str = BANK, *, timeout_s: float = 20.0) -> None:
        self._base_url = base_url
        self._timeout_s = timeout_s

    async def bulletins(self, from_on: date, until_on: date, *, now: datetime) -> tuple[Bulletin, ...]:
        """One of every day from the first to the last, in order. Raises Refused for days to come, BankAway."""
        today = now.astimezone(ZoneInfo(ZONE)).date()
        if not from_on <= until_on < today:
            raise Refused(
                f"PTAX is asked for days that are over: from {from_on} to {until_on}, today is {today}"
            )
        if (until_on - from_on).days >= DAYS_MOST:
            raise Refused(f"from {from_on} to {until_on} are more than {DAYS_MOST} days; ask in parts")
        asked = {"@a": f"'{from_on:%m-%d-%Y}'", "@b": f"'{until_on:%m-%d-%Y}'", "$format": "json"}
        try:
            async with httpx.AsyncClient(base_url=self._base_url, timeout=self._timeout_s) as client:
                answer = await client.get(PATH, params=asked)
            answer.raise_for_status()
        except httpx.HTTPError as wrong:
            raise BankAway(str(wrong).splitlines()[0] if str(wrong) else type(wrong).__name__) from wrong
        return bulletins_in(answer.content, from_on, until_on, fetched_at=now)


def bulletins_in(
    answer: bytes, from_on: date, until_on: date, *, fetched_at: datetime
) -> tuple[Bulletin, ...]:
    """The answer as one bulletin a day; of several on a day the last, which closes it. Raises BankAway."""
    digest = hashlib.sha256(answer).hexdigest()
    try:
        rows = json.loads(answer, parse_float=Decimal, parse_int=Decimal)["value"]
        told = [_told(row) for row in rows]
    except (ValueError, KeyError, TypeError) as wrong:
        raise BankAway(f"its answer is not what it documents: {type(wrong).__name__}: {wrong}") from wrong
    closing: dict[date, tuple[datetime, Decimal]] = {}
    for at, sell in sorted(told):
        closing[at.astimezone(ZoneInfo(ZONE)).date()] = (at, sell)
    astray = [day for day in closing if not from_on <= day <= until_on]
    if astray:
        raise BankAway(f"it answered about {min(astray)}, which was not asked for")
    days = [from_on + DAY * n for n in range((until_on - from_on).days + 1)]
    return tuple(
        Bulletin(
            day=day,
            sell=closing[day][1] if day in closing else None,
            bulletin_at=closing[day][0] if day in closing else None,
            fetched_at=fetched_at,
            digest=digest,
        )
        for day in days
    )


def _told(row: Mapping[str, Any]) -> tuple[datetime, Decimal]:
    at = datetime.fromisoformat(row["dataHoraCotacao"]).replace(tzinfo=ZoneInfo(ZONE))
    sell = row["cotacaoVenda"]
    if not isinstance(sell, Decimal) or sell <= 0:
        raise ValueError(f"a rate of {sell!r}")
    return at.astimezone(UTC), sell
