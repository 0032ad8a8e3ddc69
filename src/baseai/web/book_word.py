"""A book word is how a code of the books is said to people: a bucket, a category, a nature, a month's state.

Invariant: every code of finance that pages show has its word here (a test walks the enums), as an English msgid of the
catalogue; a code nobody knows is shown as it is. Pure.
"""

from collections.abc import Mapping
from types import MappingProxyType

from baseai.web.language import Language
from baseai.web.phrase import N_, Look

BUCKETS: Mapping[str, str] = MappingProxyType(
    {
        "on_demand": N_("sold on demand"),
        "reserved": N_("sold and reserved"),
        "research": N_("research tariff"),
        "spot": N_("spot"),
        "reserved_unused": N_("reserved and not used"),
        "start_up": N_("starting or clearing away"),
        "lost": N_("lost by our fault"),
        "idle": N_("idle"),
        "fragmented": N_("idle in fragments"),
        "burn_in": N_("under test"),
        "maintenance": N_("maintenance"),
        "failed": N_("broken"),
        "rma": N_("with its maker"),
        "not_live": N_("not live yet"),
    }
)
FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "installed": N_("installed"),
        "available": N_("available"),
        "sold": N_("sold"),
        "occupied": N_("occupied"),
        **BUCKETS,
    }
)
CATEGORIES: Mapping[str, str] = MappingProxyType(
    {
        "on_demand": N_("on demand"),
        "reserved": N_("within a commitment"),
        "spot": N_("spot"),
        "research": N_("research tariff"),
        "job": N_("price per run"),
        "period": N_("price per month"),
        "commitment": N_("take-or-pay"),
        "minimum": N_("true-up to the least spend"),
        "credit": N_("credit for availability"),
        "unbilled": N_("not charged"),
    }
)
COSTS: Mapping[str, str] = MappingProxyType(
    {
        "energy": N_("energy"),
        "demand": N_("power demand"),
        "colocation": N_("colocation"),
        "network": N_("network"),
        "payment_fees": N_("payment fees"),
        "support": N_("support"),
        "maintenance": N_("maintenance"),
        "depreciation": N_("depreciation"),
        "other": N_("other costs"),
    }
)
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "posted": N_("posted"),
        "pending": N_("reserved amount"),
        "post": N_("posts a reserved amount"),
        "void": N_("frees a reserved amount"),
        "timeout": N_("freed by time"),
    }
)
NATURES: Mapping[str, str] = MappingProxyType({"revenue": N_("Revenue"), "cost": N_("Cost")})
NOUNS: Mapping[str, str] = MappingProxyType(
    {
        "model": N_("Model"),
        "site": N_("Site"),
        "tenant": N_("Tenant"),
        "round": N_("Funding round"),
        "run": N_("Run"),
        "serial": N_("Accelerator"),
    }
)
SUBJECTS: Mapping[str, str] = MappingProxyType(
    {
        "model": N_("Model"),
        "site": N_("Site"),
        "customer": N_("Customer"),
        "round": N_("Funding round"),
    }
)
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "model": N_("By model"),
        "site": N_("By site"),
        "customer": N_("By customer"),
        "round": N_("By funding round"),
    }
)
PARTS: Mapping[str, str] = MappingProxyType(
    {"idle": N_("time that nobody used"), "overhead": N_("what belongs to no hour")}
)
METERS: Mapping[str, str] = MappingProxyType(
    {
        "accelerator_time": N_("accelerator time"),
        "tokens_in": N_("tokens in"),
        "tokens_out": N_("tokens out"),
        "requests": N_("requests"),
        "storage": N_("storage"),
        "energy": N_("energy"),
    }
)
PERIODS: Mapping[str, Look] = MappingProxyType(
    {
        "open": Look(
            word=N_("open"), shape="◔", tone="busy", meaning=N_("It takes its own facts and late ones.")
        ),
        "closing": Look(
            word=N_("closing"), shape="◑", tone="warn", meaning=N_("It is over and being checked.")
        ),
        "closed": Look(
            word=N_("closed"), shape="✓", tone="good", meaning=N_("Nothing of it changes any more.")
        ),
    }
)


def of(language: Language, words: Mapping[str, str], code: str) -> str:
    """A code of one of the tables above, in words; as it is where the table lacks it."""
    return language.say(words.get(code, code))
