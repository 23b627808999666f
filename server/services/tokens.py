"""Tokens: who the bearer is, signed with ES256. Two kinds: `at+jwt` for every call, `refresh+jwt` to get the next one.

Verifying follows RFC 8725: one algorithm, never the header's choice; a header of exactly `alg`, `typ` and `kid`; the
kid looked up among our own keys; type, issuer and audience exact. Times are whole seconds and are checked here against
the `now` that is passed in: PyJWT reads its own clock and takes an `exp` of 1e300. Which check failed is never told.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from server.services.keys import KeyRing, base64url
from sync.errors import InvalidGrant, Unauthorized

AUDIENCE: Final = "backhaul"
ACCESS: Final = "at+jwt"  # RFC 9068 §2.1
REFRESH: Final = "refresh+jwt"
MAX_ACCESS_S: Final = 900
REFRESH_S: Final = 180 * 86_400  # as long as tombstones are kept: a device away longer starts afresh anyway
FUTURE_S: Final = 60  # how far the clocks of two servers may be apart
MAX_TOKEN_CHARS: Final = 4096
_MAX_MOMENT: Final = 2**53
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")  # 86: the 64 bytes of ES256
_JWS: Final = jwt.PyJWS(algorithms=["ES256"], options={"verify_signature": True, "enforce_minimum_key_length": True})


@dataclass(frozen=True)
class Claims:
    """What an access token says. expires_at: seconds since the Unix epoch. system: role integration only."""

    subject: str
    role: str
    scopes: tuple[str, ...]
    system: str | None
    expires_at: int
    jti: str


@dataclass(frozen=True)
class RefreshClaims:
    """What a refresh token says. counter: its place in the family, one more at each rotation."""

    family: str
    device: str
    technician: str
    counter: int
    expires_at: int


def issue_access(
    keys: KeyRing,
    *,
    subject: str,
    role: str,
    scopes: Sequence[str],
    system: str | None = None,
    now: float,
    lifetime_s: int = MAX_ACCESS_S,
    issuer: str,
) -> str:
    """An access token. subject: `device:…`, `user:…` or `system:…`. lifetime_s: cut to MAX_ACCESS_S."""
    claims: dict[str, Any] = {
        **_common(issuer, subject, jti=uuid.uuid4().hex, now=now, lifetime_s=min(lifetime_s, MAX_ACCESS_S)),
        "role": role,
        "scopes": list(scopes),
    }
    if system is not None:
        claims["system"] = system
    return _sign(keys, ACCESS, claims)


def verify_access(
    keys: KeyRing, token: str, *, now: float, issuer: str, verified: VerifiedTokens | None = None
) -> Claims:
    """What `token` says, if we signed it and it holds at `now`.

    verified: remembers tokens between calls and spares the signature; trust in the key and the times are checked anew.
    Raises Unauthorized, without saying why.
    """
    fresh = _read(keys, token, ACCESS, now=now, issuer=issuer, max_lifetime_s=MAX_ACCESS_S, verified=verified)
    if fresh is None or (claims := _access_claims(fresh)) is None:
        raise Unauthorized()
    return claims


def issue_refresh(
    keys: KeyRing,
    *,
    family: str,
    device: str,
    technician: str,
    counter: int,
    now: float,
    lifetime_s: int = REFRESH_S,
    issuer: str,
) -> str:
    """A refresh token. The same arguments give the same token while the key stays: a lost answer can be given again."""
    claims = {
        **_common(
            issuer, f"device:{device}", jti=f"{family}.{counter}", now=now, lifetime_s=min(lifetime_s, REFRESH_S)
        ),
        "family": family,
        "device": device,
        "technician": technician,
        "counter": counter,
    }
    return _sign(keys, REFRESH, claims)


def verify_refresh(keys: KeyRing, token: str, *, now: float, issuer: str) -> RefreshClaims:
    """What `token` says, if we signed it and it holds at `now`. Raises InvalidGrant, without saying why."""
    claims = _read(keys, token, REFRESH, now=now, issuer=issuer, max_lifetime_s=REFRESH_S, verified=None)
    if (
        claims is None
        or not _are_texts(claims, "family", "device", "technician")
        or not _is_count(claims.get("counter"))
    ):
        raise InvalidGrant()
    return RefreshClaims(
        claims["family"], claims["device"], claims["technician"], claims["counter"], expires_at=claims["exp"]
    )


class VerifiedTokens:
    """Tokens whose signature was good, by their hash; at most `capacity`, the oldest go first."""

    def __init__(self, capacity: int = 8192) -> None:
        """capacity: tokens, about 1 kB each; a fleet larger than that only verifies more often."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._seen: dict[bytes, tuple[str, dict[str, Any]]] = {}

    def get(self, token: str) -> tuple[str, dict[str, Any]] | None:
        """The kid and claims of `token`, if it was put here."""
        return self._seen.get(_hash(token))

    def put(self, token: str, kid: str, claims: dict[str, Any]) -> None:
        """Remembers a token that was verified."""
        with self._lock:
            while len(self._seen) >= self._capacity:
                del self._seen[next(iter(self._seen))]
            self._seen[_hash(token)] = (kid, claims)


def _hash(token: str) -> bytes:
    return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=32).digest()


# -- signing ------------------------------------------------------------------------------------------------------


def _common(issuer: str, subject: str, *, jti: str, now: float, lifetime_s: int) -> dict[str, Any]:
    issued_at = int(now)
    return {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": subject,
        "jti": jti,
        "iat": issued_at,
        "exp": issued_at + lifetime_s,
    }


def _sign(keys: KeyRing, typ: str, claims: dict[str, Any]) -> str:
    """Signed by RFC 6979, whose nonce comes from the message: equal claims, equal token. PyJWT draws a random one."""
    key = keys.current
    parts = ({"alg": "ES256", "typ": typ, "kid": key.kid}, claims)
    signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    r, s = decode_dss_signature(key.private.sign(signed.encode(), _ES256))
    return f"{signed}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


_ES256: Final = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


# -- verifying ----------------------------------------------------------------------------------------------------


def _read(
    keys: KeyRing,
    token: str,
    typ: str,
    *,
    now: float,
    issuer: str,
    max_lifetime_s: int,
    verified: VerifiedTokens | None,
) -> dict[str, Any] | None:
    """The claims of a token of this kind that holds at `now`; None if anything at all is wrong with it."""
    known = verified.get(token) if verified else None
    kid, claims = known or _verify_signature(keys, token, typ)
    if keys.find(kid) is None or not _holds(claims, now=now, issuer=issuer, max_lifetime_s=max_lifetime_s):
        return None
    if verified and known is None:
        verified.put(token, kid, claims)
    return claims


def _verify_signature(keys: KeyRing, token: str, typ: str) -> tuple[str, dict[str, Any]]:
    """The kid and the claims; an empty kid, which is no key's, for a token that is not ours."""
    if len(token) > MAX_TOKEN_CHARS or not _COMPACT.fullmatch(token):
        return "", {}
    try:
        header = _JWS.get_unverified_header(token)
        # Exactly these: no jku, x5u, jwk, crit or b64 is ever followed, because none is ever accepted.
        if header.keys() != {"alg", "typ", "kid"} or header["typ"] != typ or header["alg"] != "ES256":
            return "", {}
        key = keys.find(header["kid"])
        if key is None:
            return "", {}
        claims = json.loads(_JWS.decode(token, key.public, algorithms=["ES256"]))
    except (jwt.PyJWTError, ValueError, RecursionError):
        return "", {}
    return (key.kid, claims) if isinstance(claims, dict) else ("", {})


def _holds(claims: dict[str, Any], *, now: float, issuer: str, max_lifetime_s: int) -> bool:
    if claims.get("iss") != issuer or claims.get("aud") != AUDIENCE or not _are_texts(claims, "sub", "jti"):
        return False
    times: list[Any] = [claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)]
    if not all(map(_is_count, times)):
        return False
    issued_at, expires_at, not_before = (int(time) for time in times)
    return (
        max(issued_at, not_before) <= now + FUTURE_S
        and now < expires_at
        and 0 < expires_at - issued_at <= max_lifetime_s
    )


def _access_claims(claims: dict[str, Any]) -> Claims | None:
    scopes, system = claims.get("scopes"), claims.get("system")
    if not _are_texts(claims, "role") or not isinstance(scopes, list) or not all(isinstance(s, str) for s in scopes):
        return None
    if system is not None and not isinstance(system, str):
        return None
    return Claims(claims["sub"], claims["role"], tuple(scopes), system, claims["exp"], claims["jti"])


def _are_texts(claims: dict[str, Any], *names: str) -> bool:
    return all(isinstance(claims.get(name), str) and claims[name] for name in names)


def _is_count(value: Any) -> bool:
    """A whole number that is no bool and no float: 1e300 and True compare like numbers, and are none of ours."""
    return type(value) is int and 0 <= value < _MAX_MOMENT
