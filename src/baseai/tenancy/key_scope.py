"""A scope narrows what a key opens: to calling models, or to calling some of them.

Invariant: a scope takes away and never gives: the role still has to cover the deed. A key without scopes opens
whatever its role may do. What scopes there are stands here and nowhere else.
"""

import re
from collections.abc import Sequence

from baseai.ground.fault import Refused

CALL = "call"  # calling models at the gateway, and nothing else
SERVICE = "service:"  # followed by its name: the same of that service alone; several add up
SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SCOPES_MAX = 100


def scopes_of(said: Sequence[str]) -> tuple[str, ...] | None:
    """Each scope once, in order; None for none at all. Raises Refused for one there is not."""
    for one in said:
        if one != CALL and not (one.startswith(SERVICE) and SERVICE_NAME.fullmatch(one[len(SERVICE) :])):
            raise Refused(f"{one[:80]!r} is not a scope: use `call`, or `service:NAME` for one service alone")
    if len(said) > SCOPES_MAX:
        raise Refused(f"{len(said)} scopes are more than a key has, which is {SCOPES_MAX}: make several keys")
    return tuple(sorted(set(said))) or None


def services_in(scopes: Sequence[str] | None) -> frozenset[str] | None:
    """The names of the services that a key may call; None for all.

    `call` beside `service:NAME` opens no further service: both say that the key does nothing else.
    """
    named = frozenset(one[len(SERVICE) :] for one in scopes or () if one.startswith(SERVICE))
    return named or None
