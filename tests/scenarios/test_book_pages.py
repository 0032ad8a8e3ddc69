"""Any figure of the books is walked down to the serial of an accelerator, over HTTP, with runs that really ran."""

import html
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar

import pytest

from tests.scenarios.platform import Platform, platform

SLEEPER = "type: task\nname: {name}\ncommands: [sleep 3]\nresources: {{cpu: 1}}\n"
LINK = re.compile(r'href="([^"]+)"')


class Browser:
    """A browser without script: pages, and the links on them."""

    def __init__(self, home: Platform, key: str | None = None) -> None:
        self._url = home.connect["url"]
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._opener.addheaders = [("Accept-Language", "en")]
        self.open(home.ask("POST", "/sign-in-links", key=key)["url"])

    def open(self, address: str) -> str:
        """The page's text; an address is the site's own, or a whole one. Raises HTTPError."""
        url = address if address.startswith("http") else self._url + address
        with self._opener.open(url, timeout=15) as answer:
            return str(answer.read().decode())

    def status(self, address: str) -> int:
        try:
            self.open(address)
        except urllib.error.HTTPError as wrong:
            return wrong.code
        return 200


def links(page: str, *beginnings: str) -> list[str]:
    """Addresses on a page that begin so, in their order, without the place within a page."""
    found = (html.unescape(link).partition("#")[0] for link in LINK.findall(page.split("<main", 1)[1]))
    return [link for link in dict.fromkeys(found) if link.startswith(beginnings)]


def figure(page: str, name: str) -> tuple[str, str]:
    """(text, address) of the figure of that name."""
    found = re.search(rf'<dt>{name}</dt><dd><a href="([^"]+)">([^<]+)</a>', page)
    assert found, name
    return found[2], html.unescape(found[1])


def wait_posted(home: Platform, runs: int, within_s: float = 60.0) -> None:
    """Until every run has ended up in the books: one revenue and its costs."""
    deadline = time.monotonic() + within_s
    query = "SELECT count(DISTINCT run_id) FROM transfers WHERE credit_account = 'revenue:on_demand'"
    while home.sql(query) != [(runs,)] or home.sql("SELECT count(*) FROM unposted") != [(0,)]:
        assert time.monotonic() < deadline, home.logs()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def home() -> Iterator[Platform]:
    with platform("--cpu-slots", "2") as started:
        run_ids = [started.submit(SLEEPER.format(name=f"sleeper-{number}")) for number in range(2)]
        other = started.ask("POST", "/tenants", {"name": "globex"})
        for run_id in run_ids:
            started.wait_ended(run_id)
            started.check_metered(run_id)
        assert other["name"] == "globex"
        wait_posted(started, len(run_ids))
        yield started


def key_of(home: Platform, role: str, tenant: str | None = None) -> str:
    body = {"name": f"{role}-{tenant or 'us'}-{time.monotonic_ns()}", "role": role, "tenant": tenant}
    return str(home.ask("POST", "/keys", body)["secret"])


def serials(home: Platform) -> set[str]:
    return {serial for (serial,) in home.sql("SELECT serial FROM accelerators")}


def walk_line(browser: Browser, address: str, serials: set[str]) -> None:
    """From a rated line by its use and its lease to the samples of the accelerator, and back."""
    line = browser.open(address)
    assert "Metered use behind it" in line
    [lease_address] = links(line, "/books/leases/")
    lease = browser.open(lease_address)
    assert address in links(lease, "/books/lines/")
    for serial_address in links(lease, "/accelerators/"):
        assert serial_address.removeprefix("/accelerators/") in serials
        assert browser.status(serial_address) == 200
    [day_address, *_] = links(lease, "/books/hours/")
    day = browser.open(day_address)
    assert lease_address in links(day, "/books/leases/")  # the strip's piece leads back to the lease
    assert links(day, "/accelerators/")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_revenue_is_walked_down_to_a_serial(home: Platform) -> None:
    browser = Browser(home)
    month = browser.open("/books")
    text, address = figure(month, "Revenue")
    postings = browser.open(address)
    assert f"<dt>Difference</dt><dd>{text}</dd>" in postings  # what is listed sums to the figure
    transfers = links(postings, "/books/transfers/")
    assert len(transfers) == home.sql(
        "SELECT count(*) FROM transfers WHERE credit_account LIKE 'revenue:%'"
    )[0][0]  # fmt: skip
    for transfer_address in transfers:
        transfer = browser.open(transfer_address)
        assert len(links(transfer, "/books/accounts/")) == 2
        [line_address] = links(transfer, "/books/lines/")
        assert transfer_address in links(browser.open(line_address), "/books/transfers/")
        walk_line(browser, line_address, serials(home))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_costs_are_walked_down_by_the_statement_and_its_accounts(home: Platform) -> None:
    browser = Browser(home)
    accounts = links(browser.open("/books"), "/books/accounts/")
    assert {"/books/accounts/revenue%3Aon_demand", "/books/accounts/cost%3Aenergy"} <= {
        address.partition("?")[0] for address in accounts
    }
    for address in accounts:
        transfers = links(browser.open(address), "/books/transfers/")
        assert transfers, address
        transfer = browser.open(transfers[0])
        [samples, *_] = links(transfer, "/accelerators/")
        assert samples.removeprefix("/accelerators/") in serials(home)
        if "cost%3A" in address:
            walk_line(browser, links(transfer, "/books/lines/")[0], serials(home))
    trial = links(browser.open("/books/trial-balance"), "/books/accounts/")
    assert {address.partition("?")[0] for address in accounts} <= set(trial)


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    "name", ["Installed hours", "Available hours", "Sold, of available", "Occupied, of available"]
)
def test_hours_are_walked_down_to_the_lease_of_a_day(home: Platform, name: str) -> None:
    browser = Browser(home)
    _, address = figure(browser.open("/books"), name)
    listed = links(browser.open(address), "/books/hours/")
    assert {link.split("/")[-1].partition("?")[0] for link in listed} <= serials(home)
    for link in listed:
        of_month = browser.open(link)
        [day] = links(of_month, "?day=")
        strip = browser.open(link.partition("?")[0] + day)
        assert links(strip, "/books/leases/")
        assert 'class="b-on_demand"' in strip


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_picture_of_the_month_sums_to_installed_time(home: Platform) -> None:
    browser = Browser(home)
    page = browser.open("/books")
    rows = re.findall(r"<tr><th scope=\"row\"><svg class=\"swatch\".*?<td class=\"n\">([\d.,]+)</td>", page)
    [whole] = re.findall(r"installed time</th><td class=\"n\"><b>([\d.,]+)</b>", page)
    assert sum(map(float, rows)) == pytest.approx(float(whole), abs=0.0002)
    [day] = [link for link in links(page, "/books?") if "day=" in link]
    assert "hour by hour" in browser.open(day)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_customer_sees_their_own_lines_and_nobody_elses(home: Platform) -> None:
    [(tenant,)] = home.sql("SELECT t.name FROM tenants t JOIN runs r USING (tenant_id) LIMIT 1")
    own, stranger = (Browser(home, key_of(home, "customer", name)) for name in (tenant, "globex"))
    page = own.open("/books")
    lines = links(page, "/books/lines/")
    assert len(lines) == 2
    for address in lines:
        line = own.open(address)
        [lease] = links(line, "/books/leases/")
        assert any(serial in own.open(lease) for serial in serials(home))
        assert not links(line, "/books/transfers/", "/accelerators/")
        assert stranger.status(address) == 404
        assert stranger.status(lease) == 404
    assert "Nothing has been charged" in stranger.open("/books")
    for shut in (
        "/books/postings",
        "/books/trial-balance",
        "/books/hours",
        "/books/accounts/revenue:on_demand",
    ):
        assert own.status(shut) == 403, shut


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_an_investor_sees_totals_and_no_names(home: Platform) -> None:
    [(tenant, tenant_id)] = home.sql(
        "SELECT t.name, tenant_id FROM tenants t JOIN runs r USING (tenant_id) LIMIT 1"
    )
    investor = Browser(home, key_of(home, "investor"))
    for address in ("/books", "/books?sort=label", "/books/trial-balance"):
        page = investor.open(address).split("<main", 1)[1]
        assert not re.search(rf">\s*{tenant}\s*<", page)
        assert tenant_id not in page
        assert "revenue:on_demand" in page
        assert not links(page.join(["<main", ""]), "/books/postings", "/books/accounts/", "/books/transfers/")
    assert "customer 1" in investor.open("/books")
    [transfer] = home.sql(
        "SELECT transfer_id, run_id FROM transfers WHERE credit_account = 'revenue:on_demand' LIMIT 1"
    )
    for shut in (
        f"/books/transfers/{transfer[0]}",
        "/books/postings?nature=revenue",
        "/books/accounts/revenue:on_demand",
    ):
        assert investor.status(shut) == 403, shut
    [serial, *_] = serials(home)
    day = links(investor.open(f"/books/hours/{serial}"), "?day=")[0]
    strip = investor.open(f"/books/hours/{serial}{day}")
    assert "leased" in strip
    assert tenant_id not in strip
    assert not links(strip, "/books/leases/", "/runs/")
