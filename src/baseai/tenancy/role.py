"""A role is a set of things its holder may do. A key has exactly one.

Invariant: what a role may do stands in `MAY` and nowhere else; doors ask `may`. A customer's key also carries
its tenant, and then every row is filtered by it, whatever the role allows.
"""

from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    OPERATOR = "operator"
    CUSTOMER = "customer"
    FINANCE = "finance"
    INVESTOR = "investor"
    VIEWER = "viewer"
    NODE = "node"


class Deed(StrEnum):
    """One kind of thing a door can be asked for."""

    SUBMIT_RUNS = "submit runs"
    SEE_RUNS = "see runs"
    SEE_FLEET = "see the fleet"
    STEER_FLEET = "steer the fleet"
    MANAGE_TENANTS = "manage tenants and keys"
    MANAGE_SECRETS = "manage secrets"
    SEE_MONEY = "see money"
    SEE_BOOKS = "see the books"
    SEE_CUSTOMERS = "see which customer a posting is of"
    CLOSE_BOOKS = "check and close the books"
    AGREE = "make contracts and prices"
    CALL_MODELS = "call models"
    REPORT_AS_NODE = "report as a node"


MAY: MappingProxyType[Role, frozenset[Deed]] = MappingProxyType(
    {
        Role.OPERATOR: frozenset(set(Deed) - {Deed.REPORT_AS_NODE}),
        Role.CUSTOMER: frozenset(
            {Deed.SUBMIT_RUNS, Deed.SEE_RUNS, Deed.MANAGE_SECRETS, Deed.SEE_MONEY, Deed.CALL_MODELS}
        ),
        Role.FINANCE: frozenset(
            {
                Deed.SEE_RUNS,
                Deed.SEE_FLEET,
                Deed.SEE_MONEY,
                Deed.SEE_BOOKS,
                Deed.SEE_CUSTOMERS,
                Deed.CLOSE_BOOKS,
                Deed.AGREE,
            }
        ),
        Role.INVESTOR: frozenset({Deed.SEE_FLEET, Deed.SEE_BOOKS}),
        Role.VIEWER: frozenset({Deed.SEE_FLEET}),
        Role.NODE: frozenset({Deed.REPORT_AS_NODE}),
    }
)


def may(role: Role, deed: Deed) -> bool:
    return deed in MAY[role]
