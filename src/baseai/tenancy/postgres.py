"""Tenants, keys, tokens, links and secrets in PostgreSQL.

Whoever needs to be let in is looked up in the platform's own scope; all else runs in the asker's.
"""

import secrets as chance
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from baseai.ground.fault import Conflict, NotFound, Refused
from baseai.ground.identity import KeyId, NodeId, ProjectId, TenantId, mint
from baseai.tenancy.key import Holder, NotAdmitted, key_text, keyed_hash
from baseai.tenancy.key_scope import scopes_of
from baseai.tenancy.role import Role
from baseai.tenancy.secret import NONCE_BYTES, opened, refuse_unfit, sealed
from baseai.truth.history import record
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

LINK_LIVES = timedelta(minutes=10)
SESSION_LIVES = timedelta(hours=12)
TOKEN_LIVES = timedelta(hours=24)
HOUSE = "house"  # the platform's own tenant, whose runs test nodes
GOOD = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"  # a key that opens something
SHOWN = """k.key_id, k.name, k.role, k.created_at, k.revoked_at, k.last_used_at, k.expires_at, k.scopes,
  k.requests_per_minute, k.tokens_per_minute"""
USE_KEY = f"""
UPDATE api_keys SET last_used_at = now() WHERE hash = %s AND {GOOD}
  AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute') RETURNING *
"""  # noqa: S608 - pieces are constants of this file
KEY = f"SELECT * FROM api_keys WHERE hash = %s AND {GOOD}"  # noqa: S608 - likewise
INSERT_KEY = f"""
INSERT INTO api_keys AS k (key_id, tenant_id, project_id, node_id, name, role, hash, expires_at, scopes,
  requests_per_minute, tokens_per_minute) VALUES (%s, %s, %s, %s, %s, %s, %s, now() + %s, %s, %s, %s) RETURNING {SHOWN}
"""  # noqa: S608 - likewise
KEYS = f"""
SELECT {SHOWN}, t.name AS tenant, p.name AS project FROM api_keys k LEFT JOIN tenants t USING (tenant_id)
LEFT JOIN projects p USING (project_id) WHERE k.role <> 'node' ORDER BY k.created_at
"""  # noqa: S608 - likewise
Row = dict[str, Any]


class Tenancy:
    """Who may do what. `pepper` and `master` are 32 bytes each and lie outside the database."""

    def __init__(self, truth: Truth, *, pepper: bytes, master: bytes) -> None:
        self._truth = truth
        self._pepper = pepper
        self._master = master

    # ---- being let in

    async def holder(self, text: str) -> Holder:
        """Whose key this is. Raises NotAdmitted without a hint."""
        async with self._truth.transaction() as session:
            asked = (self._hash(text),)
            row = await fetch_one(session, USE_KEY, asked) or await fetch_one(session, KEY, asked)
        return _holder(row)

    async def session_holder(self, text: str) -> Holder:
        """Whose browser session this is. Raises NotAdmitted."""
        async with self._truth.transaction() as session:
            row = await fetch_one(
                session,
                "SELECT k.* FROM sign_ins s JOIN api_keys k USING (key_id)"
                " WHERE s.hash = %s AND s.kind = 'session' AND s.expires_at > now() AND k.revoked_at IS NULL"
                " AND (k.expires_at IS NULL OR k.expires_at > now())",
                (self._hash(text),),
            )
        return _holder(row)

    async def make_link(self, key_id: KeyId) -> str:
        """A token that signs one browser in as `key_id`, once, within ten minutes."""
        return await self._sign_in("link", "lnk", key_id, LINK_LIVES)

    async def use_link(self, text: str) -> str:
        """The session that a link is exchanged for. Raises NotAdmitted when used, old or unknown."""
        async with self._truth.transaction() as session:
            row = await fetch_one(
                session,
                "UPDATE sign_ins s SET used_at = now() FROM api_keys k WHERE s.hash = %s AND s.kind = 'link'"
                " AND s.used_at IS NULL AND s.expires_at > now() AND k.key_id = s.key_id AND k.revoked_at IS NULL"
                " AND (k.expires_at IS NULL OR k.expires_at > now()) RETURNING s.key_id",
                (self._hash(text),),
            )
        if row is None:
            raise NotAdmitted
        return await self._sign_in("session", "ses", KeyId(row["key_id"]), SESSION_LIVES)

    async def sign_out(self, text: str) -> None:
        async with self._truth.transaction() as session:
            await session.execute("DELETE FROM sign_ins WHERE hash = %s", (self._hash(text),))

    async def _sign_in(self, kind: str, prefix: str, key_id: KeyId, lives: timedelta) -> str:
        text = key_text(prefix, chance.token_bytes(20))
        async with self._truth.transaction() as session:
            await session.execute("DELETE FROM sign_ins WHERE expires_at < now() - interval '1 day'")
            await session.execute(
                "INSERT INTO sign_ins (hash, kind, key_id, expires_at) VALUES (%s, %s, %s, now() + %s)",
                (self._hash(text), kind, key_id, lives),
            )
        return text

    # ---- tenants and projects

    async def make_tenant(self, name: str, *, actor: str) -> Row:
        """A tenant and its first project, `main`. Raises Conflict when the name is taken, Refused for our own."""
        if name == HOUSE:
            raise Refused(f"{HOUSE} is the platform's own tenant: choose another name")
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            made = await fetch_one(
                session,
                "INSERT INTO tenants (tenant_id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING *",
                (mint("ten"), name),
            )
            if made is None:
                raise Conflict(f"there is a tenant {name} already")
            await self._insert_project(session, made["tenant_id"], "main")
            await record(
                session, "tenant", made["tenant_id"], "made", actor=actor, tenant_id=made["tenant_id"]
            )
        return {**made, "projects": ["main"]}

    async def tenants_exist(self) -> bool:
        async with self._truth.transaction() as session:
            return await fetch_one(session, "SELECT FROM tenants WHERE NOT house LIMIT 1") is not None

    async def house(self) -> tuple[TenantId, ProjectId]:
        """The platform's own project, made when it is first asked for. It is on no list and takes no keys."""
        async with self._truth.transaction() as session:
            await session.execute(
                "INSERT INTO tenants (tenant_id, name, house) VALUES (%s, %s, true) ON CONFLICT DO NOTHING",
                (mint("ten"), HOUSE),
            )
            await session.execute(
                "INSERT INTO projects (project_id, tenant_id, name) SELECT %s, tenant_id, 'main' FROM tenants"
                " WHERE house ON CONFLICT DO NOTHING",
                (mint("prj"),),
            )
            row = await fetch_one(
                session, "SELECT p.* FROM projects p JOIN tenants t USING (tenant_id) WHERE t.house"
            )
        assert row is not None
        return TenantId(row["tenant_id"]), ProjectId(row["project_id"])

    async def make_project(self, tenant: str, name: str, *, actor: str) -> Row:
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            tenant_id = await self._tenant_id(session, tenant)
            await self._insert_project(session, tenant_id, name)
            await record(session, "project", name, "made", actor=actor, tenant_id=tenant_id)
        return {"tenant": tenant, "name": name}

    async def tenants(self, scope: Scope) -> Sequence[Row]:
        async with self._truth.transaction(scope) as session:
            return await fetch_all(
                session,
                "SELECT t.*, coalesce(array_agg(p.name ORDER BY p.name) FILTER (WHERE p.name IS NOT NULL), '{}')"
                " AS projects FROM tenants t LEFT JOIN projects p USING (tenant_id)"
                " WHERE NOT t.house AND (%s = '*' OR t.tenant_id = %s) GROUP BY t.tenant_id ORDER BY t.name",
                (scope.setting(), scope.setting()),
            )

    async def project(self, scope: Scope, tenant: str | None, name: str | None) -> tuple[TenantId, ProjectId]:
        """The project a request is about: the named one, or the first of the tenant. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(
                session,
                "SELECT p.* FROM projects p JOIN tenants t USING (tenant_id)"
                " WHERE NOT t.house AND (%(tenant)s::text IS NULL OR t.name = %(tenant)s OR t.tenant_id = %(tenant)s)"
                " AND (%(name)s::text IS NULL OR p.name = %(name)s) ORDER BY t.created_at, p.created_at LIMIT 1",
                {"tenant": tenant, "name": name},
            )
        if row is None:
            raise NotFound(
                "project", name or tenant or "at all: make a tenant first with `baseai tenant add NAME`"
            )
        return TenantId(row["tenant_id"]), ProjectId(row["project_id"])

    async def project_names(self, scope: Scope, project: tuple[TenantId, ProjectId]) -> tuple[str, str]:
        """The names of its tenant and of the project itself."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(
                session,
                "SELECT t.name AS tenant, p.name FROM projects p JOIN tenants t USING (tenant_id)"
                " WHERE p.project_id = %s",
                (project[1],),
            )
        assert row is not None
        return row["tenant"], row["name"]

    async def _insert_project(self, session: Session, tenant_id: str, name: str) -> None:
        made = await fetch_one(
            session,
            "INSERT INTO projects (project_id, tenant_id, name) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING RETURNING project_id",
            (mint("prj"), tenant_id, name),
        )
        if made is None:
            raise Conflict(f"there is a project {name} already")

    async def _tenant_id(self, session: Session, name: str) -> str:
        row = await fetch_one(
            session,
            "SELECT tenant_id FROM tenants WHERE NOT house AND (name = %s OR tenant_id = %s)",
            (name, name),
        )
        if row is None:
            raise NotFound("tenant", name)
        return str(row["tenant_id"])

    async def _project_id(self, session: Session, tenant_id: str | None, name: str) -> str:
        row = await fetch_one(
            session,
            "SELECT project_id FROM projects WHERE tenant_id = %s AND (name = %s OR project_id = %s)",
            (tenant_id, name, name),
        )
        if row is None:
            raise NotFound("project", name)
        return str(row["project_id"])

    # ---- keys

    async def make_key(
        self,
        name: str,
        role: Role,
        *,
        actor: str,
        tenant: str | None = None,
        project: str | None = None,
        node_id: NodeId | None = None,
        text: str | None = None,
        expires_in: timedelta | None = None,
        scopes: Sequence[str] = (),
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> Row:
        """A new key; its text stands in `secret` of the answer and nowhere else.

        project: whose services alone it calls; None: those of all. expires_in: from now, by the database's clock; None:
        never. scopes, as `key_scope` has them: none for all that the role may do. The two limits hold at the gateway,
        beside those of services.
        Raises Refused where role and tenant, or project and scopes, do not go together, or for a scope there is not.
        """
        kept_scopes = scopes_of(scopes)
        if (role is Role.CUSTOMER) != (tenant is not None):
            raise Refused(
                "a customer's key belongs to a tenant: name it with --tenant"
                if role is Role.CUSTOMER
                else f"a key of the role {role} is the platform's own and takes no tenant"
            )
        if project is not None and (tenant is None or kept_scopes is None):
            raise Refused(
                "a key for one project is for calling its services alone: add --tenant and --scope call"
            )
        text = text or key_text("bai", chance.token_bytes(25))
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            tenant_id = await self._tenant_id(session, tenant) if tenant is not None else None
            project_id = await self._project_id(session, tenant_id, project) if project is not None else None
            made = await fetch_one(
                session,
                INSERT_KEY,
                (mint("key"), tenant_id, project_id, node_id, name, role.value, self._hash(text), expires_in,
                 list(kept_scopes) if kept_scopes else None, requests_per_minute, tokens_per_minute),
            )  # fmt: skip
            assert made is not None
            await record(session, "key", made["key_id"], "made", actor=actor, tenant_id=tenant_id)
        return {**made, "tenant": tenant, "project": project, "secret": text}

    async def ensure_key(self, name: str, role: Role, text: str) -> None:
        """A platform key with this very text, once."""
        async with self._truth.transaction() as session:
            made = await session.execute(
                "INSERT INTO api_keys (key_id, name, role, hash) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (mint("key"), name, role.value, self._hash(text)),
            )
            if made.rowcount:
                await record(session, "key", name, "made", actor="platform")

    async def keys(self, scope: Scope) -> Sequence[Row]:
        async with self._truth.transaction(scope) as session:
            return await fetch_all(session, KEYS)

    async def revoke_key(self, key_id: str, *, actor: str) -> None:
        """No request with this key is answered from now on; its browser sessions end with it. Raises NotFound."""
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            done = await session.execute(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = %s", (key_id,)
            )
            if done.rowcount == 0:
                raise NotFound("key", key_id)
            await record(session, "key", key_id, "revoked", actor=actor, tenant_id=None)

    # ---- join tokens

    async def make_join_token(self, site: str, *, actor: str) -> tuple[str, datetime]:
        text = key_text("join", chance.token_bytes(20))
        async with self._truth.transaction(Scope(tenant_id=None, actor=actor)) as session:
            row = await fetch_one(
                session,
                "INSERT INTO join_tokens (hash, site_id, made_by, expires_at) VALUES (%s, %s, %s, now() + %s)"
                " RETURNING expires_at",
                (self._hash(text), site, actor, TOKEN_LIVES),
            )
        assert row is not None
        return text, row["expires_at"]

    async def ensure_join_token(self, text: str, site: str) -> None:
        """A join token with this very text, once."""
        async with self._truth.transaction() as session:
            await session.execute(
                "INSERT INTO join_tokens (hash, site_id, made_by, expires_at) VALUES (%s, %s, 'platform', now() + %s)"
                " ON CONFLICT DO NOTHING",
                (self._hash(text), site, TOKEN_LIVES),
            )

    async def spend_join_token(self, session: Session, text: str) -> str:
        """The site the token admits to, in the caller's transaction, so that a failed join leaves it unspent.

        Raises NotAdmitted when unknown or old, Conflict when used before.
        """
        row = await fetch_one(
            session, "SELECT site_id, used_at, expires_at < now() AS old FROM join_tokens WHERE hash = %s FOR UPDATE",
            (self._hash(text),),
        )  # fmt: skip
        if row is None or row["old"]:
            raise NotAdmitted
        if row["used_at"] is not None:
            raise Conflict("this join token was used before: make a new one with `baseai node token`")
        await session.execute("UPDATE join_tokens SET used_at = now() WHERE hash = %s", (self._hash(text),))
        return str(row["site_id"])

    async def insert_node_key(self, session: Session, node_id: NodeId, name: str) -> str:
        """A key that speaks for `node_id` only, replacing former ones, in the caller's transaction."""
        text = key_text("node", chance.token_bytes(25))
        await session.execute(
            "UPDATE api_keys SET revoked_at = now() WHERE node_id = %s AND revoked_at IS NULL", (node_id,)
        )
        await session.execute(
            "INSERT INTO api_keys (key_id, node_id, name, role, hash) VALUES (%s, %s, %s, 'node', %s)",
            (mint("key"), node_id, f"node {name}", self._hash(text)),
        )
        return text

    # ---- secrets

    async def set_secret(
        self, scope: Scope, project: tuple[TenantId, ProjectId], name: str, value: str
    ) -> Row:
        """Seal a value under that name. Raises Refused where no process could be given it."""
        tenant_id, project_id = project
        refuse_unfit(name, value)
        ciphertext = sealed(
            value,
            master=self._master,
            project_id=project_id,
            name=name,
            nonce=chance.token_bytes(NONCE_BYTES),
        )
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(
                session,
                "INSERT INTO secrets (tenant_id, project_id, name, ciphertext) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (project_id, name) DO UPDATE SET ciphertext = excluded.ciphertext, updated_at = now()"
                " RETURNING name, updated_at",
                (tenant_id, project_id, name, ciphertext),
            )
            await record(session, "secret", name, "set", actor=scope.actor, tenant_id=tenant_id)
        assert row is not None
        return dict(row)

    async def secret_names(self, scope: Scope) -> Sequence[Row]:
        async with self._truth.transaction(scope) as session:
            return await fetch_all(
                session,
                "SELECT s.name, p.name AS project, s.updated_at FROM secrets s JOIN projects p USING (project_id)"
                " ORDER BY p.name, s.name",
            )

    async def remove_secret(self, scope: Scope, project: tuple[TenantId, ProjectId], name: str) -> None:
        async with self._truth.transaction(scope) as session:
            done = await session.execute(
                "DELETE FROM secrets WHERE project_id = %s AND name = %s", (project[1], name)
            )
            if done.rowcount == 0:
                raise NotFound("secret", name)
            await record(session, "secret", name, "removed", actor=scope.actor, tenant_id=project[0])

    def open_secrets(self, rows: Sequence[Row]) -> dict[str, str]:
        """Name → value of rows of `secrets`, for the run that asked for them."""
        return {
            row["name"]: opened(
                bytes(row["ciphertext"]), master=self._master, project_id=row["project_id"], name=row["name"]
            )
            for row in rows
        }

    def _hash(self, text: str) -> bytes:
        return keyed_hash(text, self._pepper)


def _holder(row: Row | None) -> Holder:
    if row is None:
        raise NotAdmitted
    return Holder(
        key_id=KeyId(row["key_id"]),
        name=row["name"],
        role=Role(row["role"]),
        tenant_id=row["tenant_id"],
        project_id=row["project_id"],
        node_id=row["node_id"],
        scopes=tuple(row["scopes"]) if row["scopes"] is not None else None,
        expires_at=row["expires_at"],
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
    )
