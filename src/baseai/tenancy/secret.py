"""A secret is a value a tenant's runs may see and nobody may read back.

Invariant: at rest it is sealed with AES-256-GCM under the platform's master key, bound to its project and name, so
that a ciphertext moved to another row does not open. It never enters an event, a log or an answer.
"""

import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from baseai.ground.fault import Fault, Refused

NONCE_BYTES = 12
VALUE_BYTES_MAX = 64 * 1024  # the kernel hands a process at most 128 KiB in one variable
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class SecretUnreadable(Fault):
    """The stored secret does not open under this platform's master key."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the secret {self.name} was sealed under another master key: set it again with `baseai secret set`"


def refuse_unfit(name: str, value: str) -> None:
    """Raises Refused for what could never be a process's environment variable."""
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{name[:80]!r} is not a name of a secret: use letters, digits and _, no digit at the beginning"
        )
    if "\0" in value:
        raise Refused(f"the secret {name} holds a zero byte, which no environment variable can")
    if len(value.encode(errors="surrogatepass")) > VALUE_BYTES_MAX:
        raise Refused(f"the secret {name} is larger than {VALUE_BYTES_MAX // 1024} KiB")


def sealed(value: str, *, master: bytes, project_id: str, name: str, nonce: bytes) -> bytes:
    """The ciphertext, its nonce before it. `master`: 32 bytes; `nonce`: 12 bytes never used before."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    return nonce + AESGCM(master).encrypt(nonce, value.encode(), _bound(project_id, name))


def opened(ciphertext: bytes, *, master: bytes, project_id: str, name: str) -> str:
    """What was sealed. Raises SecretUnreadable under a wrong key or for a ciphertext of another row."""
    nonce, body = ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:]
    try:
        return AESGCM(master).decrypt(nonce, body, _bound(project_id, name)).decode()
    except (InvalidTag, ValueError) as wrong:  # ValueError: too short to be one at all
        raise SecretUnreadable(name) from wrong


def _bound(project_id: str, name: str) -> bytes:
    return f"baseai secret\x1f{project_id}\x1f{name}".encode()
