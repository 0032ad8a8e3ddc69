"""The pages speak Portuguese first and English second: every word, number, sum and instant."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape

import pytest

from baseai.fleet.lease import LeaseState
from baseai.fleet.node import Health, NodeState
from baseai.scheduling.constraint import Constraint
from baseai.scheduling.plan import Change, Lever, Obstacle, StartKind, WaitKind
from baseai.scheduling.sentence import change_phrase
from baseai.serving.state import ReplicaState, ServiceState, VersionState
from baseai.tenancy.role import Role
from baseai.web import phrase, service_word
from baseai.web.language import chosen, load_languages
from baseai.workloads.reason import Reason
from baseai.workloads.run import RunEvent, RunState
from tests.web.catalogue import HERE, TEMPLATES, msgids, translations

LANGUAGES = load_languages()
PT, EN = LANGUAGES["pt-BR"], LANGUAGES["en"]
AT = datetime(2026, 11, 22, 23, 5, 9, tzinfo=UTC)


def test_everything_is_said_in_portuguese() -> None:
    known = translations("pt_BR")
    missing = [msgid for msgid in msgids() if not known.get(msgid) or not all(known[msgid])]
    assert missing == []


def test_nothing_is_translated_that_nobody_says() -> None:
    assert set(translations("pt_BR")) - set(msgids()) == set()


def test_a_translation_keeps_the_facts_of_its_msgid() -> None:
    for msgid, said in translations("pt_BR").items():
        for one, other in zip(
            (msgid,) if isinstance(msgid, str) else msgid,
            (said,) if isinstance(said, str) else said,
            strict=True,
        ):
            assert sorted(re.findall(r"%\(\w+\)\w", one)) == sorted(re.findall(r"%\(\w+\)\w", other)), one


def literals(template: str) -> list[str]:
    """What a template says by itself: its text, and the attributes that people hear, without tags of any kind."""
    text = re.sub(r"\{#.*?#\}", "", template, flags=re.DOTALL)
    text = re.sub(r"\{%-? *trans.*?endtrans *-?%\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", text, flags=re.DOTALL)
    heard = re.findall(r'(?:aria-label|title|alt|placeholder|data-(?:on|off|lost|over))="([^"]*)"', text)
    shown = re.sub(r"<(code|pre)\b.*?</\1>", "", text, flags=re.DOTALL)
    shown = re.sub(r"<[^>]*>", "\n", shown)
    names = re.compile(
        r"^(base|ai|· baseai|ms|data-live=.*)$"
    )  # names, units, an attribute that a block adds
    lines = [unescape(line).strip() for line in [*heard, *shown.splitlines()]]
    return [line for line in lines if re.search(r"[^\W\d_]{2,}", line) and not names.match(line)]


@pytest.mark.parametrize("path", TEMPLATES, ids=[path.relative_to(HERE).as_posix() for path in TEMPLATES])
def test_a_template_says_nothing_outside_the_catalogue(path: object) -> None:
    assert literals(path.read_text(encoding="utf-8")) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "template", ["<p>Hello</p>", '<a title="Hello">{{ x }}</a>', "{% if x %}Hello{% endif %}"]
)
def test_a_literal_is_found(template: str) -> None:
    assert literals(template) == ["Hello"]


@pytest.mark.parametrize(
    ("asked", "remembered", "accepted", "expected"),
    [
        pytest.param(None, None, None, "pt-BR", id="Portuguese by itself"),
        pytest.param(None, None, "en-GB,en;q=0.9", "en", id="what the browser accepts"),
        pytest.param(None, None, "de, pt;q=0.3, en;q=0.2", "pt-BR", id="by its weights"),
        pytest.param(None, None, "en;q=0, fr", "pt-BR", id="refused is not accepted"),
        pytest.param(None, "pt-BR", "en", "pt-BR", id="remembered before accepted"),
        pytest.param("en", "pt-BR", "pt", "en", id="asked for before all"),
        pytest.param("xx", None, "en;q=oops, en", "en", id="nonsense is passed over"),
    ],
)
def test_language_is_chosen(
    asked: str | None, remembered: str | None, accepted: str | None, expected: str
) -> None:
    assert chosen(asked=asked, remembered=remembered, accepted=accepted) == expected


@pytest.mark.parametrize(
    ("amount", "currency", "pt", "en"),
    [
        ("1234.56", "USD", "US$\xa01.234,56", "US$\xa01,234.56"),
        ("0.000417", "USD", "US$\xa00,000417", "US$\xa00.000417"),
        ("3", "BRL", "R$\xa03,00", "R$\xa03.00"),
        ("-0.5", "USD", "-US$\xa00,50", "-US$\xa00.50"),
    ],
)
def test_money_has_the_digits_it_needs(amount: str, currency: str, pt: str, en: str) -> None:
    assert (PT.money(Decimal(amount), currency), EN.money(Decimal(amount), currency)) == (pt, en)


def test_numbers_follow_the_language() -> None:
    assert (PT.exact(1234.5, 3), EN.exact(1234.5, 3)) == ("1.234,500", "1,234.500")
    assert PT.percent(0.0833) == "8,3 %"
    assert PT.number(None) == PT.percent(None) == "–"


def test_an_instant_is_shown_where_the_platform_is_with_its_zone_and_utc_beside() -> None:
    assert PT.when(AT) == (
        '<time datetime="2026-11-22T23:05:09+00:00" title="2026-11-22 23:05:09 UTC">'
        "22/11/2026 20:05:09 <small>BRT</small></time>"
    )
    assert "2026-11-22 20:05 <small>UTC-03:00</small>" in EN.when(AT, seconds=False)


def test_a_machine_without_zones_shows_utc_and_says_so() -> None:
    assert "23:05:09 <small>UTC</small>" in load_languages("Atlantis/Nowhere")["en"].when(AT)


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        pytest.param(AT, "20:05", id="today, where the platform is"),
        pytest.param(AT + timedelta(hours=4), "23/11 00:05", id="tomorrow"),
        pytest.param(AT + timedelta(days=60), "21/01/2027 20:05", id="next year"),
    ],
)
def test_an_instant_to_come_is_as_short_as_it_can_be_told(at: datetime, shown: str) -> None:
    assert f">{shown}</time>" in PT.soon(at, AT)
    assert "UTC" in PT.soon(at, AT)  # in its title


def test_how_long_until() -> None:
    assert [PT.about(seconds) for seconds in (900, 4 * 3600, 3 * 86_400)] == ["15 min", "4 h", "3 dias"]


def test_how_long_ago() -> None:
    assert ">há 3 minutos</time>" in PT.ago(AT - timedelta(seconds=181), AT)
    assert ">3 minutes ago</time>" in EN.ago(AT - timedelta(seconds=181), AT)


def test_an_instant_without_a_zone_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no zone"):
        PT.when("2026-11-22T20:00:00")


@pytest.mark.parametrize(
    ("codes", "phrases"),
    [
        pytest.param(RunState, phrase.RUN_STATES, id="run states"),
        pytest.param(NodeState, phrase.NODE_STATES, id="node states"),
        pytest.param(Health, phrase.HEALTHS, id="health"),
        pytest.param(LeaseState, phrase.LEASE_STATES, id="lease states"),
        pytest.param(ServiceState, service_word.SERVICE_STATES, id="service states"),
        pytest.param(VersionState, service_word.VERSION_STATES, id="version states"),
        pytest.param(ReplicaState, service_word.REPLICA_STATES, id="replica states"),
        pytest.param(Reason, phrase.REASONS, id="reasons"),
        pytest.param(RunEvent, phrase.EVENTS, id="events of a run"),
        pytest.param(WaitKind, phrase.WAITS, id="waits"),
        pytest.param(Obstacle, phrase.OBSTACLES, id="obstacles"),
        pytest.param(StartKind, phrase.STARTS, id="kinds of start"),
        pytest.param(Lever, phrase.CHANGES, id="levers"),
        pytest.param(Constraint, phrase.FAILING, id="constraints"),
        pytest.param(Role, phrase.ROLES, id="roles"),
    ],
)
def test_every_code_has_its_phrase(codes: object, phrases: object) -> None:
    assert {code.value for code in codes} - set(phrases) == set()  # type: ignore[attr-defined,call-overload]


def test_states_of_one_noun_are_told_apart_without_colour() -> None:
    for looks in (*phrase.LOOKS.values(), *service_word.LOOKS.values()):
        assert len({look.word for look in looks.values()}) == len(looks)


ASKED: dict[Lever, tuple[int | str, int | str]] = {
    Lever.ACCELERATORS: (8, 2),
    Lever.NODES: (4, 1),
    Lever.MEMORY: (65536, 32768),
    Lever.DISK: (65536, 32768),
    Lever.CPU: (8000, 2500),
    Lever.DURATION: (86400, 3600),
    Lever.SITE: ("sp4", "any"),
    Lever.MODEL: ("h100-sxm-80", "cpu-slot"),
}


@pytest.mark.parametrize("lever", list(Lever))
def test_the_schedulers_advice_is_said_in_portuguese(lever: Lever) -> None:
    asked, instead = ASKED[lever]
    english = change_phrase(Change(lever=lever, asked=asked, instead=instead))
    change = {"lever": lever.value, "asked": asked, "instead": instead, "sentence": english}
    assert phrase.change(EN, change) == english
    assert "em vez de" in phrase.change(PT, change)


def test_a_code_nobody_knows_is_shown_as_it_is() -> None:
    assert phrase.reason(PT, "eaten_by_a_whale") == "eaten_by_a_whale"
    assert phrase.look_of("run", "dreaming").word == "dreaming"
    assert phrase.failing(PT, {"moon": 3}) == ["moon: 3"]
