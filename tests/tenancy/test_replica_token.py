"""A replica's token: the same for whoever holds the key, another one for each run, and no use without the key."""

import hashlib
import hmac
import re

import pytest

from baseai.tenancy.replica_token import replica_token

KEY = b"k" * 32


def test_who_orders_a_replica_and_who_routes_to_it_reckon_the_same_token() -> None:
    token = replica_token(KEY, "run_1")
    assert token == replica_token(bytes(KEY), "run_1")
    assert re.fullmatch("rpl_[a-z2-7]{52}", token), "256 bits, in letters that a header and a shell take"


def test_a_token_opens_one_run_under_one_key() -> None:
    tokens = {replica_token(key, run) for key in (KEY, b"l" * 32) for run in ("run_1", "run_2", "run_12")}
    assert len(tokens) == 6


def test_what_is_signed_for_another_purpose_is_no_token() -> None:
    bare = hmac.new(KEY, b"run_1", hashlib.sha256).digest()
    assert replica_token(KEY, "run_1") != replica_token(KEY, "") != replica_token(bare, "run_1")


def test_a_short_key_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        replica_token(b"short", "run_1")
