"""The central bank's service, played by a real server on loopback with answers of the shape that it documents."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from baseai.finance.contracts.postgres import Bulletins
from baseai.finance.ptax import BankAway, RateUnknown
from baseai.finance.ptax_http import CentralBank, bulletins_in
from baseai.ground.fault import Conflict, Refused
from baseai.truth.session import Truth

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)
CONTEXT = "https://was-p.bcnet.bcb.gov.br/olinda/servico/PTAX/versao/v1/odata$metadata#_CotacaoDolarPeriodo"
PUBLISHED = {
    "2026-11-18 13:08:26.411": (5.3001, 5.3007),
    "2026-11-19 13:10:02.100": (5.3994, 5.4),
    "2026-11-23 13:04:26.007": (5.4993, 5.4999),
}


class Bank(BaseHTTPRequestHandler):
    """Answers by the dates in the query, as the service does: an empty list where there was no bulletin."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if not url.path.endswith("CotacaoDolarPeriodo(dataInicial=@a,dataFinalCotacao=@b)"):
            self.send_error(404)
            return
        first, last = (
            datetime.strptime(query[name][0], "'%m-%d-%Y'").date()  # noqa: DTZ007 - the service has no zone here
            for name in ("@a", "@b")
        )
        rows = [
            {"cotacaoCompra": buy, "cotacaoVenda": sell, "dataHoraCotacao": at}
            for at, (buy, sell) in PUBLISHED.items()
            if first <= date.fromisoformat(at[:10]) <= last
        ]
        body = json.dumps({"@odata.context": CONTEXT, "value": rows}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json;charset=UTF-8;odata.metadata=minimal")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def bank() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bank)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_what_was_published_is_kept_with_its_time_and_a_holiday_as_one(truth: Truth) -> None:
    kept = Bulletins(truth)
    with bank() as url:
        told = await CentralBank(url).bulletins(date(2026, 11, 18), date(2026, 11, 23), now=NOW)
    assert [(one.day.day, one.sell) for one in told] == [
        (18, Decimal("5.3007")),
        (19, Decimal("5.4")),
        (20, None),
        (21, None),
        (22, None),
        (23, Decimal("5.4999")),
    ]
    assert told[0].bulletin_at == datetime(2026, 11, 18, 16, 8, 26, 411_000, tzinfo=UTC)
    assert await kept.keep(told) == 6
    assert await kept.keep(told) == 0
    monday = await kept.exchange(date(2026, 11, 23))
    assert (monday.sell, monday.bulletin.day) == (Decimal("5.4"), date(2026, 11, 19))
    with pytest.raises(RateUnknown, match="the bulletin of 2026-11-24 is not known"):
        await kept.exchange(date(2026, 11, 25))


async def test_what_was_published_is_never_changed(truth: Truth) -> None:
    kept = Bulletins(truth)
    day = date(2026, 11, 18)

    def said(sell: str) -> bytes:
        row = f'{{"cotacaoCompra":5.3,"cotacaoVenda":{sell},"dataHoraCotacao":"2026-11-18 13:08:26.411"}}'
        return f'{{"value":[{row}]}}'.encode()

    await kept.keep(bulletins_in(said("5.3007"), day, day, fetched_at=NOW))
    with pytest.raises(Conflict, match=r"PTAX of 2026-11-18 stands as 5.3007 and is now told as 5.3008"):
        await kept.keep(bulletins_in(said("5.3008"), day, day, fetched_at=NOW))


async def test_today_is_not_asked_for_because_it_may_still_be_published() -> None:
    with pytest.raises(Refused, match="days that are over"):
        await CentralBank("http://127.0.0.1:9").bulletins(date(2026, 11, 24), date(2026, 11, 24), now=NOW)


async def test_a_bank_that_is_away_may_come_back() -> None:
    with pytest.raises(BankAway) as away:
        await CentralBank("http://127.0.0.1:9").bulletins(date(2026, 11, 18), date(2026, 11, 18), now=NOW)
    assert away.value.retryable


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"<html>", id="a page"),
        pytest.param(b'{"value":[{"cotacaoVenda":5.3}]}', id="no time"),
        pytest.param(
            b'{"value":[{"cotacaoVenda":"5,3","dataHoraCotacao":"2026-11-18 13:08:26.411"}]}', id="a text"
        ),
        pytest.param(
            b'{"value":[{"cotacaoVenda":5.3,"dataHoraCotacao":"2026-11-17 13:08:26.411"}]}', id="another day"
        ),
    ],
)
def test_an_answer_of_another_shape_is_not_guessed_at(answer: bytes) -> None:
    with pytest.raises(BankAway):
        bulletins_in(answer, date(2026, 11, 18), date(2026, 11, 18), fetched_at=NOW)


def test_of_several_bulletins_of_a_day_the_last_closes_it() -> None:
    rows = [f'{{"cotacaoVenda":5.{n},"dataHoraCotacao":"2026-11-18 1{n}:00:00"}}' for n in (3, 0, 2)]
    day = date(2026, 11, 18)
    (told,) = bulletins_in(f'{{"value":[{",".join(rows)}]}}'.encode(), day, day, fetched_at=NOW)
    assert told.sell == Decimal("5.3")
