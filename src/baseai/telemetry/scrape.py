"""Reads an exporter over HTTP: DCGM's, AMD's, a TPU's, node_exporter, or whatever speaks one of their dialects.

Invariant: half an answer is read as far as it goes and no further, and what was missing is told; an answer that is no
exposition at all, or too large, is a failure and not a scrape of nothing. Outside thing touched: the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import httpx

from baseai.ground.identity import derived
from baseai.telemetry.collector import Collected, Rank, SourceFailed
from baseai.telemetry.exposition import Parser, Scrape
from baseai.telemetry.field import ACCELERATOR, NODE, PORT
from baseai.telemetry.mapping import Dialect
from baseai.telemetry.node_exporter import CpuTime, is_node_exporter, machine_of
from baseai.telemetry.normalise import Identity, Normaliser
from baseai.telemetry.sample import Row, Trouble
from baseai.telemetry.translation import Remembered
from baseai.telemetry.witness import Witness

ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4"
ANSWER_BYTES_MAX = 64 * 1024 * 1024
KIND_OF = {Dialect.DCGM: "nvidia", Dialect.AMD_EXPORTER: "amd", Dialect.TPU: "tpu"}


class Exporter:
    """The collector for one exporter."""

    rank = Rank.EXPORTER

    def __init__(
        self, url: str, *, interval_s: float, timeout_s: float, boot_id: str, quick: bool = True
    ) -> None:
        self.name = f"scrape {url}"
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.quick = quick
        self._url = url
        self._boot_id = boot_id
        self._http: httpx.AsyncClient | None = None
        self._parser = Parser()
        self._normaliser = Normaliser()
        self._remembered: Mapping[str, Remembered] = {}
        self._cpu_time: CpuTime | None = None

    async def collect(self, now: datetime) -> Collected:
        """Raises SourceFailed when nothing can be used."""
        text, openmetrics, cut = await self._fetch()
        scrape = self._parser.parse(text, source=self._url, openmetrics=openmetrics)
        troubles = list(scrape.troubles)
        if cut is not None:
            troubles.append(Trouble(source=self._url, key=None, field=None, sentence=cut))
            scrape = replace(scrape, whole=False)
        if not len(scrape):
            what = troubles[0].sentence if troubles else "the answer is empty"
            raise SourceFailed(self._url, f"no line of the answer can be read: {what}")
        return self._collected(scrape, troubles, round(now.timestamp() * 1000))

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _collected(self, scrape: Scrape, troubles: list[Trouble], at_ms: int) -> Collected:
        told = self._normaliser.normalise(scrape, at_ms=at_ms, source=self._url, before=self._remembered)
        self._remembered = told.remembered
        latest = {row.key: Row(key=row.key, ts_ms=at_ms, fields=row.fields) for row in told.rows}
        rows: dict[str, Sequence[Row]] = {ACCELERATOR.name: list(latest.values())}
        if is_node_exporter(scrape):
            machine = machine_of(scrape, at_ms=at_ms, before=self._cpu_time, source=self._url)
            self._cpu_time = machine.cpu_time
            rows |= {NODE.name: [machine.node], PORT.name: machine.ports}
            troubles += machine.troubles
        elif not latest:
            sentence = f"{len(scrape)} numbers, none of an accelerator or node in a dialect known here"
            troubles.append(Trouble(source=self._url, key=None, field=None, sentence=sentence))
        return Collected(
            rows=rows,
            other_names={key: names_of(identity) for key, identity in told.identities.items()},
            witnesses=[
                self._witness(key, code, told.identities[key], at_ms)
                for key, codes in told.codes.items()
                for code in codes
            ],
            troubles=[*troubles, *told.troubles],
        )

    def _witness(self, key: str, code: int, identity: Identity, at_ms: int) -> Witness:
        is_nvidia = identity.dialect is Dialect.DCGM
        kind = "xid" if is_nvidia else "afid"
        return Witness(
            event_id=derived("wit", self._boot_id, self._url, key, kind, code, at_ms),
            at=datetime.fromtimestamp(at_ms / 1000, UTC),
            kind=kind,
            key=next(iter((*names_of(identity), key))),
            code=code,
            severity="warning",
            sentence=f"the exporter counts {'Xid' if is_nvidia else 'AFID'} {code} once more",
            payload={"source": self._url},
        )

    async def _fetch(self) -> tuple[bytes, bool | None, str | None]:
        """The text, whether it says it is OpenMetrics, and what cut it short."""
        if self._http is None:  # made here: it belongs to the loop it is used in
            self._http = httpx.AsyncClient(
                timeout=self.timeout_s,
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
                headers={"accept": ACCEPT},
                trust_env=False,
            )
        text, cut = bytearray(), None
        try:
            async with self._http.stream("GET", self._url) as answer:
                if answer.status_code != 200:
                    raise SourceFailed(self._url, f"status {answer.status_code}")
                openmetrics = "openmetrics" in answer.headers.get("content-type", "")
                try:
                    async for piece in answer.aiter_bytes():
                        text += piece
                        if len(text) > ANSWER_BYTES_MAX:
                            raise SourceFailed(
                                self._url, f"the answer is larger than {ANSWER_BYTES_MAX >> 20} MiB"
                            )
                except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                    cut = f"the answer broke off after {len(text)} bytes: {error or type(error).__name__}"
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise SourceFailed(self._url, str(error) or type(error).__name__) from None
        return bytes(text), openmetrics or None, cut


def names_of(identity: Identity) -> tuple[str, ...]:
    """What the exporter calls a device, the surest first; its number only where it says nothing else."""
    sure = tuple(name for name in (identity.uuid, identity.serial, identity.pci) if name)
    if sure or not identity.index:
        return sure
    return (f"{KIND_OF.get(identity.dialect, identity.dialect)}/{identity.index}",)
