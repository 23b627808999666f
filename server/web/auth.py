"""Who is asking, and whether they may: the one place where a token becomes a Caller and a role is checked.

Every view says who may call it, with `@allow(roles)` or `@open_to_all`, and one hook before every request holds it to
that. A view that says nothing can be called by nobody. What a caller may see *within* an endpoint is a matter of scopes
(`sees`), which the store puts into its queries. A device's scopes and whether it is revoked come from its row at each
request, not from its token: a revocation holds from the next request on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeVar

from flask import Flask, g, request

from server.services.keys import KeyRing
from server.services.tokens import Claims, VerifiedTokens, verify_access
from sync.errors import DeviceRevoked, Forbidden, InvariantBroken, Unauthorized

TECHNICIAN: Final = "technician"
DISPATCHER: Final = "dispatcher"
INVENTORY_CONTROLLER: Final = "inventory_controller"
REVIEWER: Final = "reviewer"
INTEGRATION: Final = "integration"
AUDITOR: Final = "auditor"
ADMIN: Final = "admin"
ROLES: Final = frozenset({TECHNICIAN, DISPATCHER, INVENTORY_CONTROLLER, REVIEWER, INTEGRATION, AUDITOR, ADMIN})
OFFICE_ROLES: Final = ROLES - {TECHNICIAN, INTEGRATION}

# Whose word a write is, where a field belongs to one system (policy owner_wins). An auditor writes nothing.
SYSTEM_OF_ROLE: Final = {
    TECHNICIAN: "device",
    DISPATCHER: "fsm",
    INVENTORY_CONTROLLER: "platform",
    REVIEWER: "platform",
    ADMIN: "platform",
}
INTEGRATED_SYSTEMS: Final = frozenset({"erp", "wms", "crm", "vendor"})
EVERYTHING: Final = "*"

Kind = Literal["device", "user", "system"]
_KINDS: Final[dict[str, tuple[Kind, frozenset[str]]]] = {
    "device": ("device", frozenset({TECHNICIAN})),
    "user": ("user", OFFICE_ROLES),
    "system": ("system", frozenset({INTEGRATION})),
}


@dataclass(frozen=True)
class Caller:
    """Who sends a request. subject: `device:…`, `user:…` or `system:…`; system: whose word their writes are."""

    kind: Kind
    subject: str
    role: str
    scopes: tuple[str, ...]
    system: str | None
    device_id: str | None = None
    technician_id: str | None = None


class DeviceRow(Protocol):
    """What the check reads of a device. revoked: None while it may connect."""

    @property
    def technician_id(self) -> str: ...
    @property
    def scopes(self) -> Iterable[str]: ...
    @property
    def revoked(self) -> Literal["retired", "lost"] | None: ...


DeviceLookup = Callable[[str], DeviceRow | None]
View = TypeVar("View", bound=Callable[..., Any])


# -- what a view declares -----------------------------------------------------------------------------------------


def allow(*roles: str) -> Callable[[View], View]:
    """Decorator for a view, or a MethodView or one of its methods: these roles may call it, and admin always.

    Stands anywhere among the other decorators. Raises ValueError for a role that does not exist.
    """
    if unknown := set(roles) - ROLES:
        raise ValueError(f"no such role: {', '.join(sorted(unknown))}")
    return lambda view: _declare(view, frozenset({*roles, ADMIN}))


def open_to_all(view: View) -> View:
    """Decorator: the view is called without a token."""
    return _declare(view, _OPEN)


_OPEN: Final[frozenset[str]] = frozenset({"(everyone)"})
_DECLARATION: Final = "__backhaul_may_call__"


def _declare(view: View, roles: frozenset[str]) -> View:
    setattr(view, _DECLARATION, roles)
    return view


def _declared(app: Flask, endpoint: str, method: str) -> frozenset[str] | None:
    """A method's own declaration, else its class's, else the function's; functools.wraps carries it outwards."""
    view = app.view_functions[endpoint]
    of_class = getattr(view, "view_class", None)
    of_method = getattr(of_class, "get" if method == "HEAD" else method.lower(), None)
    candidates = (getattr(place, _DECLARATION, None) for place in (of_method, of_class, view))
    return next((roles for roles in candidates if roles is not None), None)


def undeclared_endpoints(app: Flask) -> list[str]:
    """`"GET /v1/devices"` for each call that nobody may make, because its view does not say who; best none."""
    return sorted(
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if _declared(app, rule.endpoint, method) is None
    )


# -- the check ----------------------------------------------------------------------------------------------------


def install_auth(
    app: Flask, *, keys: KeyRing, issuer: str, device_lookup: DeviceLookup, clock: Callable[[], float]
) -> None:
    """Puts the check before every request of `app`.

    issuer: the `iss` of our tokens. device_lookup: a device's row, None if there is none; asked at every request of a
    device. clock: seconds since the Unix epoch.
    The check raises Unauthorized, DeviceRevoked (with `reason`, retired or lost) or Forbidden.
    """
    verified = VerifiedTokens()

    def check_access() -> None:
        # No endpoint: routing failed, and flask will say 404 or 405. OPTIONS by itself tells methods, nothing else.
        if request.endpoint is None or (request.method == "OPTIONS" and _is_automatic()):
            return
        allowed = _declared(app, request.endpoint, request.method)
        if allowed is _OPEN:
            return
        claims = verify_access(keys, _bearer(), now=clock(), issuer=issuer, verified=verified)
        g.caller = _caller(claims, device_lookup)
        if allowed is None or claims.role not in allowed:
            raise Forbidden()

    app.before_request(check_access)


def current_caller() -> Caller:
    """Who sends the request being answered. Raises InvariantBroken in a view that is open to all."""
    if "caller" not in g:
        raise InvariantBroken("a view that is open to all has no caller")
    caller: Caller = g.caller
    return caller


def sees(caller_scopes: Iterable[str], record_scopes: Iterable[str]) -> bool:
    """Whether a holder of `caller_scopes` may see a record that lies in `record_scopes`; the scope `*` sees all."""
    held = set(caller_scopes)
    return EVERYTHING in held or not held.isdisjoint(record_scopes)


def _is_automatic() -> bool:
    return bool(getattr(request.url_rule, "provide_automatic_options", False))  # flask adds it to werkzeug's Rule


_BEARER: Final = re.compile(r"bearer ([A-Za-z0-9_.-]+)", re.IGNORECASE)


def _bearer() -> str:
    found = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if found is None:
        raise Unauthorized()
    return found[1]


def _caller(claims: Claims, device_lookup: DeviceLookup) -> Caller:
    """Raises Unauthorized where kind and role do not go together: we never sign such a token."""
    prefix, _, name = claims.subject.partition(":")
    kind, roles = _KINDS.get(prefix, (None, frozenset()))
    if kind is None or not name or claims.role not in roles:
        raise Unauthorized()
    match kind:
        case "device":
            return _device_caller(claims, name, device_lookup(name))
        case "system" if claims.system not in INTEGRATED_SYSTEMS:
            raise Unauthorized()
        case "system":
            return Caller(kind, claims.subject, claims.role, claims.scopes, claims.system)
        case _:
            return Caller(kind, claims.subject, claims.role, claims.scopes, SYSTEM_OF_ROLE.get(claims.role))


def _device_caller(claims: Claims, device_id: str, row: DeviceRow | None) -> Caller:
    if row is None:
        raise Unauthorized()
    if row.revoked is not None:
        raise DeviceRevoked(reason=row.revoked)
    return Caller(
        "device",
        claims.subject,
        claims.role,
        tuple(row.scopes),
        SYSTEM_OF_ROLE[claims.role],
        device_id=device_id,
        technician_id=row.technician_id,
    )
