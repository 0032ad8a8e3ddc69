"""Roles: who may do what is one table."""

import pytest

from baseai.tenancy.role import MAY, Deed, Role, may


@pytest.mark.parametrize(
    ("deed", "roles"),
    [
        (Deed.SUBMIT_RUNS, {Role.OPERATOR, Role.CUSTOMER}),
        (Deed.SEE_RUNS, {Role.OPERATOR, Role.CUSTOMER, Role.FINANCE}),
        (Deed.SEE_FLEET, {Role.OPERATOR, Role.FINANCE, Role.INVESTOR, Role.VIEWER}),
        (Deed.STEER_FLEET, {Role.OPERATOR}),
        (Deed.MANAGE_TENANTS, {Role.OPERATOR}),
        (Deed.MANAGE_SECRETS, {Role.OPERATOR, Role.CUSTOMER}),
        (Deed.SEE_MONEY, {Role.OPERATOR, Role.CUSTOMER, Role.FINANCE}),
        (Deed.SEE_BOOKS, {Role.OPERATOR, Role.FINANCE, Role.INVESTOR}),
        (Deed.CLOSE_BOOKS, {Role.OPERATOR, Role.FINANCE}),
        (Deed.AGREE, {Role.OPERATOR, Role.FINANCE}),
        (Deed.CALL_MODELS, {Role.OPERATOR, Role.CUSTOMER}),
        (Deed.REPORT_AS_NODE, {Role.NODE}),
    ],
)
def test_a_deed_is_for_these_roles_and_no_other(deed: Deed, roles: set[Role]) -> None:
    assert {role for role in Role if may(role, deed)} == roles


def test_every_role_stands_in_the_table() -> None:
    assert set(MAY) == set(Role)
