"""A page is one address of the browser's door: it reads within the visitor's scope, renders, and decides nothing.

Invariant: every page is for a visitor who is signed in and whose role covers it, escapes whatever people wrote, loads
nothing from elsewhere and works without script; a live page sends the same fragments again when they changed.
"""

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from baseai.ground.clock import now_utc
from baseai.ground.fault import Fault, NotFound, Refused
from baseai.ground.money import MICRO
from baseai.ground.quantity import shown_s
from baseai.telemetry.field import ACCELERATOR, NODE
from baseai.tenancy.key import NotAdmitted, NotAllowed
from baseai.tenancy.role import Deed
from baseai.web import book_word, books, phrase, service_word, services, story
from baseai.web.doors import Row, WebDoors
from baseai.web.eyes import Eyes, aspect_of, lookback_of, map_words, plot_words
from baseai.web.heatmap import ASPECTS
from baseai.web.horizon import horizon_of
from baseai.web.language import TAGS, Language, load_languages
from baseai.web.month import hours
from baseai.web.reading import bytes_shown, scaled, volume_shown
from baseai.web.visit import (
    LANGUAGE_COOKIE,
    LANGUAGE_KEPT_S,
    SECURITY_HEADERS,
    SESSION_COOKIE,
    Visit,
    language_of,
    refuse_strangers,
    visit_of,
)

HERE = Path(__file__).parent
STATIC_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
RUNS_PER_PAGE = 50
QUEUE_PER_PAGE = 25  # and so 50 KB at most
NODES_PER_PAGE = 100  # of the table under the map, which shows them all
LIVE_EVERY_S = 1.0  # no page is told more often than this
LIVE_AT_MOST_S = 1800.0  # then the browser connects anew
A_MINUTE_US = 60_000_000  # up to which milliseconds are said
TEN_HOURS_US = 36_000_000_000  # from which on hundredths of an hour say enough
SHORT = 20  # of an id that a list shows; the page behind it has all of it
MONEY_KEPT_S = 5.0  # sums over everything are not asked for again within this time

RUN_PARTS = (
    "state",
    "curve",
    "figures",
    "use",
    "result",
    "money",
    "leases",
    "checkpoints",
    "preemptions",
    "events",
)
REPLICA_PARTS = tuple(part for part in RUN_PARTS if part not in ("curve", "figures"))  # it learns nothing
NODE_PARTS = ("readings", "accelerators", "health", "collectors")
ACCELERATOR_PARTS = ("readings", "health", "leases")
Facts = dict[str, Any]


class Pages:
    """All pages over one set of doors."""

    def __init__(self, doors: WebDoors) -> None:
        self.doors = doors
        self.languages = load_languages(doors.settings.zone)
        self.eyes = Eyes(doors)
        self.static = _load_static()
        self._environments = {tag: self._environment(language) for tag, language in self.languages.items()}
        self._shares: dict[str | None, tuple[float, Sequence[Row]]] = {}
        self._sums: dict[tuple[str, str | None], tuple[float, Sequence[Row]]] = {}

    # ---- rendering

    def _environment(self, language: Language) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
        )
        environment.install_gettext_callables(  # type: ignore[attr-defined]
            language.words.gettext, language.words.ngettext, newstyle=True
        )
        environment.filters.update(
            number=language.number,
            exact=language.exact,
            percent=language.percent,
            money=language.money,
            micros=lambda micros, currency: language.money(Decimal(micros) / MICRO, currency),
            lasting_us=lambda us: (
                shown_s(us / 1e6) if us >= A_MINUTE_US else f"{language.number(us / 1e6, 3)} s"
            ),
            time_us=lambda us: language.exact(hours(us), 2 if us >= TEN_HOURS_US else 4),
            short=lambda text: text if len(text) <= SHORT else f"{text[:SHORT]}…",
            when=language.when,
            soon=language.soon,
            about=language.about,
            ago=language.ago,
            lasting=lambda seconds: "–" if seconds is None else shown_s(seconds),
            mib=lambda mib: f"{language.number(mib / 1024, 1)} GiB" if mib >= 1024 else f"{mib} MiB",
            bytes=lambda count: bytes_shown(count, language),
            watts=lambda watts: scaled(watts, "W", language),
            energy=lambda wh: scaled(wh, "Wh", language),
            size=lambda count: f"{language.number(count / 1e6, 1)} MB" if count else "–",
            volume=lambda count: volume_shown(count, language),
        )
        environment.globals.update(
            language=language,
            tags=TAGS,
            demo=self.doors.settings.demo,
            serves=self.doors.serving is not None,
            zone=self.doors.settings.zone,
            static=lambda name: f"/static/{name}?v={self.static[name].digest}",
            look=lambda noun, state: (service_word if noun in service_word.LOOKS else phrase).look_of(
                noun, state
            ),
            reason=lambda code: phrase.reason(language, code),
            event_words=lambda code: phrase.event(language, code),
            role_words=lambda code: phrase.role(language, code),
            isolation_words=lambda code: phrase.isolation(language, code),
            wait_words=lambda wait: phrase.wait(language, wait),
            failing=lambda counts: phrase.failing(language, counts),
            change_words=lambda change: phrase.change(language, change),
            words_of=lambda table, code: phrase.of(language, getattr(phrase, table), code),
            field_words=lambda family, name: phrase.field(language, family, name),
            aspects=ASPECTS,
            map_words=map_words,
            plot_words=lambda language: plot_words(language, self.doors.settings.zone),
            reading_looks=phrase.READING_STATES,
            service_words=lambda table, code: phrase.of(language, getattr(service_word, table), code),
            book_words=lambda table, code: book_word.of(language, getattr(book_word, table), code),
            periods_look=book_word.PERIODS,
            throttles=phrase.THROTTLES,
            done_ratio=story.done_ratio,
            lasted_s=story.lasted_s,
            silent_s=story.silent_s,
            Deed=Deed,
        )
        return environment

    def render(self, template: str, language: Language, **facts: Any) -> str:
        return self._environments[language.tag].get_template(template).render(now=now_utc(), **facts)

    def page(self, request: Request, visit: Visit, template: str, **facts: Any) -> Response:
        html = self.render(template, visit.language, visit=visit, **_place(request), **facts)
        return self._html(request, html, visit.language)

    def wrong(self, request: Request, status: int, kind: str) -> Response:
        """A page that says what is wrong and what to do; `kind` names the sentence."""
        language = language_of(request, self.languages)
        html = self.render("wrong.html", language, visit=None, **_place(request), kind=kind, status=status)
        return self._html(request, html, language, status=status)

    def _html(self, request: Request, html: str, language: Language, *, status: int = 200) -> Response:
        answer = HTMLResponse(html, status_code=status)
        answer.headers["Cache-Control"] = "private, no-store"
        answer.headers["Content-Language"] = language.tag
        answer.headers["Vary"] = "Cookie, Accept-Language"
        packed(request, answer)
        if request.query_params.get("lang") == language.tag:
            answer.set_cookie(
                LANGUAGE_COOKIE, language.tag, max_age=LANGUAGE_KEPT_S, samesite="lax", httponly=True,
                secure=request.url.scheme == "https",
            )  # fmt: skip
        return answer

    def drawn(self, request: Request, told: Facts) -> Response:
        """The series of a page's charts."""
        return packed(request, JSONResponse(told, headers={"Cache-Control": "private, no-store"}))

    async def visit(self, request: Request, *deeds: Deed) -> Visit:
        """Raises NotAdmitted or, where the role covers none of `deeds`, NotAllowed."""
        visit = await visit_of(request, self.doors.gate, self.languages)
        if deeds:
            visit.require(*deeds)
        return visit

    # ---- what pages show

    async def sums(self, by: Any, visit: Visit) -> Sequence[Row]:
        """Cost rows over everything in scope, at most MONEY_KEPT_S old; none for who may not see them."""
        if not visit.sees_costs:
            return ()
        key = (by, visit.scope.tenant_id)
        kept = self._sums.get(key)
        if kept is None or time.monotonic() - kept[0] > MONEY_KEPT_S:
            kept = (time.monotonic(), await self.doors.money.cost(by, None, visit.scope))
            self._sums[key] = kept
        return kept[1]

    async def fleet(self, visit: Visit, start: int = 0) -> Facts:
        """The fleet, and NODES_PER_PAGE of its nodes from the place `start` on."""
        nodes = await self.doors.views.nodes(visit.scope)
        money = story.money_by(await self.sums("node", visit))
        names: Mapping[str, str] = {}
        if visit.may(Deed.SEE_RUNS):
            runs, _ = await self.doors.views.runs(visit.scope, limit=200)
            names = {
                run["name"]: run["run_id"] for run in reversed(runs) if run["state"] not in story.LIVE_ENDS
            }
        shown = nodes[start : start + NODES_PER_PAGE]
        return {
            "nodes": shown, "nodes_total": len(nodes), "start": start,
            "step": NODES_PER_PAGE, "models": story.models_of(nodes), "money": money, "run_ids": names,
            **await self.eyes.fleet(visit, {node["node_id"] for node in shown}),
        }  # fmt: skip

    async def found_node(self, visit: Visit, name: str) -> tuple[Row, Sequence[Row]]:
        """A node and its accelerators. Raises NotFound."""
        nodes = await self.doors.views.nodes(visit.scope)
        node = next((node for node in nodes if name in (node["name"], node["node_id"])), None)
        if node is None:
            raise NotFound("node", name)
        return node, await self.doors.views.accelerators(visit.scope, node["node_id"])

    async def node(self, visit: Visit, name: str, back_name: str | None) -> Facts:
        """The whole page. Raises NotFound."""
        now = await self.node_now(visit, name)
        serials = [each["serial"] for each in now["accelerators"]]
        own = [row for each in now["accelerators"] for row in now["money"].get(each["accelerator_id"], ())]
        node_id = now["node"]["node_id"]
        return {
            **now, "totals": story.sums_of(own),
            "node_money": story.money_by(await self.sums("node", visit)).get(node_id, ()),
            **await self.eyes.node(visit, node_id, serials, lookback_of(back_name)),
        }  # fmt: skip

    async def node_now(self, visit: Visit, name: str) -> Facts:
        """What of its page changes from minute to minute. Raises NotFound."""
        node, accelerators = await self.found_node(visit, name)
        money = story.money_by(await self.sums("accelerator", visit))
        serials = [each["serial"] for each in accelerators]
        return {
            "node": node, "accelerators": accelerators, "money": money,
            **await self.eyes.node_now(visit, node["node_id"], serials),
        }  # fmt: skip

    async def node_series(self, visit: Visit, name: str, back_name: str | None) -> Facts:
        """Raises NotFound, StoreAway."""
        node, accelerators = await self.found_node(visit, name)
        serials = [each["serial"] for each in accelerators]
        return await self.eyes.node_series(visit, node["node_id"], serials, lookback_of(back_name))

    async def shares(self, visit: Visit) -> Sequence[Row]:
        """The tree of queues as this visitor may see it, at most MONEY_KEPT_S old: its usage is a sum over leases."""
        if self.doors.queues is None:
            return ()
        kept = self._shares.get(visit.scope.tenant_id)
        if kept is None or time.monotonic() - kept[0] > MONEY_KEPT_S:
            kept = (time.monotonic(), await self.doors.queues.queues(visit.scope))
            self._shares[visit.scope.tenant_id] = kept
        return kept[1]

    async def queue(self, visit: Visit, cursor: str | None = None) -> Facts:
        """Who waits, a page of it. Raises Refused for a cursor that is none."""
        views = self.doors.views
        rows, more = await views.queue(visit.scope, limit=QUEUE_PER_PAGE, cursor=cursor)
        return {
            "queue": rows,
            "more": more,
            "later_page": cursor is not None,
            "waiting": (await views.run_counts(visit.scope))["queued"],
            "room": await views.room(),
            "accuracy": await views.accuracy(),
            "shares": await self.shares(visit),
            "horizon": horizon_of(rows, now_utc()),
        }

    async def runs(self, visit: Visit, request: Request) -> Facts:
        state = request.query_params.get("state", "")
        states = [state] if state in phrase.RUN_STATES else []
        runs, more = await self.doors.views.runs(
            visit.scope,
            states=states,
            everything=state == "all",
            limit=RUNS_PER_PAGE,
            cursor=request.query_params.get("cursor"),
        )
        return {"runs": runs, "more": more, "state": state, "states": tuple(phrase.RUN_STATES)}

    async def run(self, visit: Visit, run_id: str) -> Facts:
        """Raises NotFound, also for another tenant's."""
        detail = await self.doors.views.run(visit.scope, run_id)
        points = await self.doors.views.points(visit.scope, run_id)
        money = await self.doors.money.cost("run", run_id, visit.scope) if visit.sees_charges else ()
        run = detail["run"]
        progress = run["progress"] or {}
        curve = story.curve_of(points, detail["events"], detail["checkpoints"], progress, visit.language)
        return {
            "run": run, "leases": detail["leases"], "events": detail["events"], "checkpoints": detail["checkpoints"],
            "preemptions": detail["preemptions"], "money": money, "curve": curve, "progress": progress,
            "result": run["result"] or {},
            "remaining_s": story.remaining_s(run, points), "ended": run["state"] in story.LIVE_ENDS,
            "use": await self.eyes.use_of_run(visit, run_id, detail["leases"]), "measures": self.doors.eyes is not None,
        }  # fmt: skip

    async def trial_balance(self, visit: Visit) -> Facts:
        trial = await self.doors.money.trial_balance(visit.scope)
        by_tenant, by_node = await self.sums("tenant", visit), await self.sums("node", visit)
        names = visit.may(Deed.SEE_CUSTOMERS)
        return {
            "names": names,
            "balances": trial["balances"] if names else story.without_tenants(trial["balances"]),
            "trial": trial,
            "by_tenant": by_tenant,
            "by_node": by_node,
            "totals": story.sums_of(by_tenant),
        }

    async def offers(self, visit: Visit) -> Facts:
        return {"offers": await self.doors.views.offers(), "prices": await self.doors.money.prices()}

    # ---- live

    def live(
        self, request: Request, visit: Visit, changes: AsyncIterator[None], parts: Sequence[str], folder: str,
        facts: Callable[[], Awaitable[Facts]], beside: AsyncGenerator[str, None] | None = None,
    ) -> Response:  # fmt: skip
        """A stream of the fragments of a page, each sent when it changed; it ends with the run or the session.

        beside: events of another kind, sent along as they come until the fragments end.
        """

        async def told() -> AsyncGenerator[str, None]:
            sent: dict[str, str] = {}
            until = time.monotonic() + LIVE_AT_MOST_S
            yield "retry: 2000\n\n"
            # What changed between the page and this stream is told at once.
            async with aclosing(_at_once_and_then(changes)) as news:
                async for _ in news:
                    try:
                        await self.doors.gate.session_holder(request.cookies.get(SESSION_COOKIE, ""))
                        known = await facts()
                    except Fault as fault:
                        if fault.retryable:
                            yield ": not now\n\n"
                            continue
                        yield "event: over\ndata: {}\n\n"
                        return
                    fresh = {
                        part: self.render(f"parts/{folder}{part}.html", visit.language, visit=visit, **known)
                        for part in parts
                    }
                    changed = {part: html for part, html in fresh.items() if sent.get(part) != html}
                    sent |= changed
                    yield f"data: {json.dumps(changed)}\n\n" if changed else ": still here\n\n"
                    if known.get("ended"):
                        yield "event: over\ndata: {}\n\n"
                        return
                    if time.monotonic() > until:
                        return
                    await asyncio.sleep(LIVE_EVERY_S)

        return StreamingResponse(
            told() if beside is None else _interleaved(told(), beside),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


class StaticFile:
    """One file of the static folder, in memory."""

    def __init__(self, path: Path) -> None:
        self.body = path.read_bytes()
        self.packed = gzip.compress(self.body, mtime=0)
        self.media_type = STATIC_TYPES[path.suffix]
        self.digest = hashlib.sha256(self.body).hexdigest()[:16]


def _load_static() -> Mapping[str, StaticFile]:
    return {
        path.name: StaticFile(path)
        for path in sorted((HERE / "static").iterdir())
        if path.suffix in STATIC_TYPES
    }


async def _interleaved(
    lead: AsyncGenerator[str, None], beside: AsyncGenerator[str, None]
) -> AsyncGenerator[str, None]:
    """What both say, as they say it, until `lead` is done; neither waits for the other."""
    said: asyncio.Queue[str] = asyncio.Queue(maxsize=2)

    async def pass_on(told: AsyncGenerator[str, None]) -> None:
        async with aclosing(told):
            async for text in told:
                await said.put(text)

    leading, following = asyncio.create_task(pass_on(lead)), asyncio.create_task(pass_on(beside))
    getting = asyncio.create_task(said.get())
    try:
        while not leading.done():
            at_work = {getting, leading} if following.done() else {getting, leading, following}
            await asyncio.wait(at_work, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
                getting = asyncio.create_task(said.get())
            if following.done():
                following.result()  # what went wrong in it is not kept quiet
        while not said.empty():
            yield said.get_nowait()
        leading.result()
    finally:
        for task in (leading, following, getting):
            task.cancel()
        await asyncio.gather(leading, following, getting, return_exceptions=True)


def packed(request: Request, answer: Response) -> Response:
    """The same answer in gzip where the browser takes it; a short one stays as it is."""
    body = bytes(answer.body)
    answer.headers.append("Vary", "Accept-Encoding")
    if len(body) > 1000 and takes_gzip(request):
        answer.body = gzip.compress(body, 4, mtime=0)
        answer.headers["Content-Encoding"] = "gzip"
        answer.headers["Content-Length"] = str(len(answer.body))
    return answer


def takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


async def _at_once_and_then(changes: AsyncIterator[None]) -> AsyncGenerator[None, None]:
    try:
        yield
        async for _ in changes:
            yield
    finally:
        if isinstance(changes, AsyncGenerator):
            await changes.aclose()  # now, so that whatever it listens on is let go with the browser


def _start(request: Request) -> int:
    """The place in a list that the address asks for; the first where it asks for none that there is."""
    asked = request.query_params.get("from", "0")
    return int(asked) if asked.isdecimal() and len(asked) < 9 else 0


def _place(request: Request) -> Facts:
    """Where in the site this is, and the same place in each language."""
    path = request.url.path if request.method == "GET" else "/"
    same = {tag: f"{path}?{request.url.include_query_params(lang=tag).query}" for tag in TAGS}
    return {"here": path, "in_language": same}


def _route_of(pages: Pages) -> type[APIRoute]:
    class PageRoute(APIRoute):
        """Turns faults into pages, and puts the security headers on every answer."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    answer = await handle(request)
                except NotAdmitted:
                    answer = pages.wrong(
                        request, 401, "link" if "/sign-in/" in request.url.path else "sign-in"
                    )
                except NotAllowed:
                    answer = pages.wrong(request, 403, "role")
                except NotFound:
                    answer = pages.wrong(request, 404, "absent")
                except Refused:
                    answer = pages.wrong(request, 400, "refused")
                except Fault as fault:
                    if not fault.retryable:
                        raise
                    answer = pages.wrong(request, 503, "later")
                    answer.headers["Retry-After"] = "2"
                for name, value in SECURITY_HEADERS.items():
                    answer.headers.setdefault(name, value)
                return answer

            return handled

    return PageRoute


def router(doors: WebDoors) -> APIRouter:
    """The pages over `doors`, to be put at the root of the server."""
    pages = Pages(doors)
    routes = APIRouter(route_class=_route_of(pages), include_in_schema=False)

    @routes.get("/")
    async def home(request: Request) -> Response:
        visit = await pages.visit(request)
        return RedirectResponse("/fleet" if visit.may(Deed.SEE_FLEET) else "/runs", status_code=303)

    @routes.get("/sign-in/{token}")
    async def sign_in(request: Request, token: str) -> Response:
        if "prefetch" in request.headers.get("sec-purpose", ""):
            return Response(status_code=503)  # a browser that looks ahead must not use the link up
        session = await doors.gate.use_link(token)
        answer: Response
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A browser sends no strict cookie along a redirect that another site began: step through a page of ours.
            language = language_of(request, pages.languages)
            html = pages.render("signed_in.html", language, visit=None, **_place(request))
            answer = HTMLResponse(html, headers={"Cache-Control": "no-store"})
        else:
            answer = RedirectResponse("/", status_code=303, headers={"Cache-Control": "no-store"})
        answer.set_cookie(
            SESSION_COOKIE,
            session,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path="/",
        )
        return answer

    @routes.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        refuse_strangers(request)
        session = request.cookies.get(SESSION_COOKIE)
        if session:
            await doors.gate.sign_out(session)
        answer = pages.wrong(request, 200, "signed-out")
        answer.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    @routes.get("/fleet")
    async def fleet(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        facts = await pages.fleet(visit, _start(request))
        return pages.page(
            request, visit, "fleet.html", **facts, aspect=aspect_of(request.query_params.get("aspect"))
        )

    @routes.get("/fleet/plan")
    async def fleet_plan(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        plan = await pages.eyes.plan(visit)
        headers = {"Cache-Control": "private, no-store", "Vary": "Accept-Encoding"}
        if not takes_gzip(request):
            return Response(gzip.decompress(plan), media_type="application/json", headers=headers)
        return Response(plan, media_type="application/json", headers=headers | {"Content-Encoding": "gzip"})

    @routes.get("/fleet/cells")
    async def fleet_cells(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        cells, version = await pages.eyes.cells(visit, aspect_of(request.query_params.get("aspect")))
        headers = {"Cache-Control": "private, no-store", "X-Plan": version}
        return packed(request, Response(cells, media_type="application/octet-stream", headers=headers))

    @routes.get("/fleet/live")
    async def fleet_live(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        aspect, start = aspect_of(request.query_params.get("aspect")), _start(request)
        return pages.live(
            request, visit, doors.news.fleet_changes(), ("sum", "fleet"), "", lambda: pages.fleet(visit, start),
            pages.eyes.cells_told(visit, aspect),
        )  # fmt: skip

    @routes.get("/nodes/{name}")
    async def node(request: Request, name: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        facts = await pages.node(visit, name, request.query_params.get("back"))
        return pages.page(request, visit, "node.html", **facts)

    @routes.get("/nodes/{name}/series")
    async def node_series(request: Request, name: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        return pages.drawn(request, await pages.node_series(visit, name, request.query_params.get("back")))

    @routes.get("/nodes/{name}/live")
    async def node_live(request: Request, name: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        node, _ = await pages.found_node(visit, name)
        asked = request.query_params.get("back")
        return pages.live(
            request, visit, pages.eyes.slow_beats(), NODE_PARTS, "node_", lambda: pages.node_now(visit, name),
            pages.eyes.series_told(
                NODE, node["node_id"], lookback_of(asked), lambda: pages.node_series(visit, name, asked)
            ),
        )  # fmt: skip

    @routes.get("/accelerators/{serial}")
    async def accelerator(request: Request, serial: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        back = lookback_of(request.query_params.get("back"))
        return pages.page(
            request, visit, "accelerator.html", **await pages.eyes.accelerator(visit, serial, back)
        )

    @routes.get("/accelerators/{serial}/series")
    async def accelerator_series(request: Request, serial: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        back = lookback_of(request.query_params.get("back"))
        return pages.drawn(request, await pages.eyes.accelerator_series(visit, serial, back))

    @routes.get("/accelerators/{serial}/live")
    async def accelerator_live(request: Request, serial: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_FLEET)
        back, eyes = lookback_of(request.query_params.get("back")), pages.eyes
        await doors.views.accelerator(visit.scope, serial)  # 404 before anything is told
        return pages.live(
            request, visit, eyes.slow_beats(), ACCELERATOR_PARTS, "accelerator_",
            lambda: eyes.accelerator_now(visit, serial),
            eyes.series_told(ACCELERATOR, serial, back, lambda: eyes.accelerator_series(visit, serial, back)),
        )  # fmt: skip

    @routes.get("/queue")
    async def queue(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        cursor = request.query_params.get("cursor")
        return pages.page(request, visit, "queue.html", **await pages.queue(visit, cursor))

    @routes.get("/queue/live")
    async def queue_live(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        return pages.live(
            request, visit, doors.news.fleet_changes(), ("queue",), "", lambda: pages.queue(visit)
        )

    @routes.get("/runs")
    async def runs(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        return pages.page(request, visit, "runs.html", **await pages.runs(visit, request))

    @routes.get("/runs/{run_id}")
    async def run(request: Request, run_id: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        facts = await pages.run(visit, run_id)
        parts = REPLICA_PARTS if facts["run"].get("service") else RUN_PARTS
        return pages.page(request, visit, "run.html", parts=parts, **facts)

    @routes.get("/runs/{run_id}/series")
    async def run_series(request: Request, run_id: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        return pages.drawn(request, await pages.eyes.run_series(visit, run_id))

    @routes.get("/runs/{run_id}/live")
    async def run_live(request: Request, run_id: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_RUNS)
        await doors.views.run(
            visit.scope, run_id
        )  # another tenant's is 404 here as well, before anything is told
        return pages.live(
            request,
            visit,
            doors.news.run_changes(run_id),
            RUN_PARTS,
            "run_",
            lambda: pages.run(visit, run_id),
            pages.eyes.run_told(lambda: pages.eyes.run_series(visit, run_id)) if doors.eyes else None,
        )

    @routes.get("/books/trial-balance")
    async def trial_balance(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_BOOKS)
        return pages.page(request, visit, "books/trial_balance.html", **await pages.trial_balance(visit))

    if doors.books is not None:
        books.routes(pages, routes, doors.books)
    if doors.serving is not None:
        services.routes(pages, routes, doors.serving, doors.news)

    @routes.get("/offers")
    async def offers(request: Request) -> Response:
        visit = await pages.visit(request)
        return pages.page(request, visit, "offers.html", **await pages.offers(visit))

    @routes.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        found = pages.static.get(name)
        if found is None:
            raise NotFound("file", name)
        # With its digest in the address a file never changes; without it the browser asks each time.
        kept = (
            "public, max-age=31536000, immutable"
            if request.query_params.get("v") == found.digest
            else "no-cache"
        )
        headers = {"ETag": f'"{found.digest}"', "Cache-Control": kept}
        if request.headers.get("if-none-match") == f'"{found.digest}"':
            return Response(status_code=304, headers=headers)
        headers["Vary"] = "Accept-Encoding"
        if takes_gzip(request):
            return Response(
                found.packed, media_type=found.media_type, headers=headers | {"Content-Encoding": "gzip"}
            )
        return Response(found.body, media_type=found.media_type, headers=headers)

    return routes
