"""Directives: the words of Cache-Control that are heeded; what cannot be read is taken for the stricter."""

import pytest

from baseai.gateway.directives import AskedOf, asked_by, told_by


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (b"", AskedOf()),
        (b"no-cache", AskedOf(fresh_only=True)),
        (b"No-Store", AskedOf(keeps_out=True)),
        (b"only-if-cached", AskedOf(kept_only=True)),
        (b" max-age=60 , only-if-cached", AskedOf(kept_only=True, max_age_s=60)),
        (b'max-age="5"', AskedOf(max_age_s=5)),
        (b"max-age", AskedOf(max_age_s=0)),
        (b"max-age=-1", AskedOf(max_age_s=0)),
        (b"max-age=1e9", AskedOf(max_age_s=0)),
        (b"max-age=1, max-age=9", AskedOf(max_age_s=1)),
        (b"something-new=1, \xff", AskedOf()),
    ],
)
def test_what_a_request_asks(said: bytes, asked: AskedOf) -> None:
    assert asked_by(said) == asked


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"public", None),
        (b"max-age=60", 60),
        (b"max-age=60, s-maxage=5", 5),
        (b"no-store", 0),
        (b"no-cache, max-age=60", 0),
        (b"private", 0),
        (b"max-age=soon", 0),
    ],
)
def test_how_long_an_answer_may_be_kept(said: bytes, seconds: int | None) -> None:
    assert told_by(said) == seconds
