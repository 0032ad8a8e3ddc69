"""A key is what its holder shows to be let in; only a keyed hash of it is stored.

Invariant: the key itself leaves the platform once, in the answer that made it. Equal keys hash equally under one
pepper, so a lookup needs no scan; without the pepper, which lies outside the database, a stolen table opens nothing.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from baseai.ground.fault import Fault
from baseai.ground.identity import KeyId, NodeId, ProjectId, TenantId
from baseai.tenancy.role import Role


class NotAdmitted(Fault):
    """The key is wrong, revoked, expired or absent; which of these is not said."""

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "the key is not accepted; keys can be revoked, and they can expire"


class NotAllowed(Fault):
    """The key is good and its role does not cover the deed."""

    def __init__(self, role: str, deed: str) -> None:
        super().__init__(role, deed)
        self.role = role
        self.deed = deed

    def __str__(self) -> str:
        return f"a key of the role {self.role} may not {self.deed}"


class OutOfScope(Fault):
    """The key is good and was made for calling models alone."""

    def __init__(self, scopes: tuple[str, ...]) -> None:
        super().__init__(scopes)
        self.scopes = scopes

    def __str__(self) -> str:
        return (
            f"a key with the scopes {', '.join(self.scopes)} may only call models, at the gateway;"
            " for this use a key without scopes"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who a request comes from, as its key says."""

    key_id: KeyId
    name: str
    role: Role
    tenant_id: TenantId | None  # only a customer's key has one
    project_id: ProjectId | None
    node_id: NodeId | None  # only a node's key has one
    scopes: tuple[str, ...] | None = None  # None: whatever the role may do
    expires_at: datetime | None = None
    requests_per_minute: int | None = None  # at the gateway, of this key alone; None: as services limit
    tokens_per_minute: int | None = None


def key_text(prefix: str, chance: bytes) -> str:
    """A key of `chance` (at least 20 bytes) as people copy it: `prefix_` and letters that need no quoting."""
    if len(chance) < 20:
        raise ValueError("a key needs 20 bytes of chance")
    return f"{prefix}_{base64.b32encode(chance).decode().lower().rstrip('=')}"


def keyed_hash(text: str, pepper: bytes) -> bytes:
    """32 bytes to store and look up by. `pepper`: at least 32 secret bytes of this platform."""
    if len(pepper) < 32:
        raise ValueError("the pepper needs 32 bytes")
    return hmac.new(pepper, text.encode(), hashlib.sha256).digest()
