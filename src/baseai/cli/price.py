"""A list price is what an hour of something that was asked for costs, as far as offers tell.

Invariant: where the model or the count is left open the price is a range, and where no offer fits there is none.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from baseai.cli.call import Call
from baseai.cli.column import money_text, plain
from baseai.cli.http import Declined

if TYPE_CHECKING:
    from baseai.api.schemas import Offer, RunView, ServiceView

# A number that belongs to no name and is no memory: how many accelerators are asked for.
COUNT = re.compile(r"(?<![\w-])(?<!\d\.)(\d+(?:\.\d+)?)(?!\.?[\w-]|\s*[KMGT]i?B)")


def listed_price(call: Call, asked: "RunView | ServiceView") -> str:
    """`price_text` by the platform's offers; empty where this key may not see them."""
    from baseai.api.schemas import Offer

    try:
        offers, _ = call.platform.get("/offers").items(Offer)
    except Declined:
        return ""  # a price that this key may not see is no reason to fail
    return price_text(asked, offers)


def price_text(run: "RunView | ServiceView", offers: "Sequence[Offer]") -> str:
    """What an hour of the run costs at list price, a range where the run leaves the model or the count open."""
    amounts: list[tuple[Decimal, str]] = []
    for ask in plain(run.gpu).split("|"):
        words = {word.casefold() for word in re.findall(r"[A-Za-z][\w.-]*", ask)}
        fitting = [
            offer for offer in offers if any(offer.model.casefold().startswith(word) for word in words)
        ]
        exact = [offer for offer in fitting if offer.model.casefold() in words]
        counts = [math.ceil(float(count)) for count in COUNT.findall(ask)] or [1]
        amounts += [
            (offer.price_per_hour * count * run.nodes, offer.currency)
            for offer in exact or fitting
            for count in counts
        ]
    if not amounts:
        return ""
    (least, currency), (most, _) = min(amounts), max(amounts)
    shown = money_text(least, currency) + ("" if least == most else f" to {money_text(most, currency)}")
    return f"{currency} {shown} an hour at list price"
