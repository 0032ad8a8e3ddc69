"""A visit is one request of a browser: who it is, what it may see, in which language, and the headers of the answer.

Invariant: a request that changes something must come from our own pages; the session travels in one cookie that
no script can read and that no other site can make a browser send.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from fastapi import Request

from baseai.ground.fault import Refused
from baseai.tenancy.key import Holder, NotAdmitted, NotAllowed
from baseai.tenancy.role import Deed, may
from baseai.truth.session import Scope
from baseai.web.doors import Gate
from baseai.web.language import Language, chosen

SESSION_COOKIE = "baseai_session"
LANGUAGE_COOKIE = "baseai_lang"
LANGUAGE_KEPT_S = 365 * 24 * 3600

SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request by somebody who is signed in."""

    holder: Holder
    language: Language

    def may(self, deed: Deed) -> bool:
        return may(self.holder.role, deed)

    def require(self, *deeds: Deed) -> None:
        """Raises NotAllowed unless the role covers one of `deeds`."""
        if not any(self.may(deed) for deed in deeds):
            raise NotAllowed(self.holder.role.value, deeds[0].value)

    @property
    def scope(self) -> Scope:
        return Scope(tenant_id=self.holder.tenant_id, actor=self.holder.name)

    @property
    def sees_costs(self) -> bool:
        """What things cost us, and what remains, is for those who see the books; a tenant sees what it pays."""
        return self.may(Deed.SEE_BOOKS)

    @property
    def sees_charges(self) -> bool:
        return self.may(Deed.SEE_MONEY) or self.sees_costs


def language_of(request: Request, languages: Mapping[str, Language]) -> Language:
    tag = chosen(
        asked=request.query_params.get("lang"),
        remembered=request.cookies.get(LANGUAGE_COOKIE),
        accepted=request.headers.get("accept-language"),
    )
    return languages[tag]


async def visit_of(request: Request, gate: Gate, languages: Mapping[str, Language]) -> Visit:
    """Raises NotAdmitted without a session that stands."""
    session = request.cookies.get(SESSION_COOKIE)
    if not session:
        raise NotAdmitted
    holder = await gate.session_holder(session)
    return Visit(holder=holder, language=language_of(request, languages))


def refuse_strangers(request: Request) -> None:
    """Raises Refused for a POST that another site made the browser send."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site == "same-origin":
            return
    else:
        # Only the host is compared: behind a balancer that ends TLS the scheme differs.
        origin = urlsplit(request.headers.get("origin", "")).netloc
        if origin and origin == request.headers.get("host"):
            return
    raise Refused("this request did not come from our own pages")
