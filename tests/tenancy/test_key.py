"""Keys: enough chance, one hash for one text under one pepper, nothing to read back."""

import pytest

from baseai.tenancy.key import NotAdmitted, key_text, keyed_hash

PEPPER = b"p" * 32


def test_a_key_can_be_copied_without_quotes() -> None:
    text = key_text("bai", bytes(range(25)))
    assert text == "bai_" + text[4:].lower()
    assert text.isascii()
    assert text.replace("_", "").isalnum()
    assert len(text) == 44


def test_a_key_with_too_little_chance_is_no_key() -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        key_text("bai", bytes(19))


def test_the_hash_needs_the_pepper() -> None:
    assert keyed_hash("k", PEPPER) == keyed_hash("k", PEPPER)
    assert keyed_hash("k", PEPPER) != keyed_hash("k", b"q" * 32)
    assert keyed_hash("k", PEPPER) != keyed_hash("l", PEPPER)
    assert len(keyed_hash("k", PEPPER)) == 32
    with pytest.raises(ValueError, match="32 bytes"):
        keyed_hash("k", b"short")


def test_not_admitted_has_nothing_to_tell() -> None:
    assert (NotAdmitted().args, str(NotAdmitted())) == (
        (),
        "the key is not accepted; keys can be revoked, and they can expire",
    )
