"""Devices: enrolling one with a code, keeping it signed in over lost answers, and shutting it out.

A family is the chain of refresh tokens of one enrolment, and its counter that of the newest one issued. Presenting the
newest moves it on; presenting the one before gives the newest again, because the answer may have been lost; what is
older was copied, and the family ends. A counter above the stored one was issued by us in a timeline that a restore
lost, as was a device that is not known: both are taken over, unless the revocations outside the database name them.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, Final, Literal

from server.services.keys import KeyRing
from server.services.tokens import MAX_ACCESS_S, RefreshClaims, issue_access, issue_refresh, verify_refresh
from server.settings import Settings
from server.store import enrolment
from server.store.engine import transaction
from server.store.enrolment import Database, Transaction
from sync.errors import DeviceRevoked, InvalidGrant, NotFound, UnknownTechnician
from sync.store import Actor

ALPHABET: Final = (
    "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing in it is mistaken for another on a phone call
)
CODE_CHARS: Final = 12  # 60 bits
REVOCATIONS: Final = "revocations.log"
_DAY_S: Final = 86_400
_LOOKALIKES: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})

Reason = Literal["retired", "lost"]


@dataclass(frozen=True, slots=True)
class Desk:
    """What enrolling and signing in need. clock: ms."""

    engine: Database
    keys: KeyRing
    settings: Settings
    clock: Callable[[], int]

    @property
    def revocations(self) -> Revocations:
        return Revocations(self.settings.data_dir / REVOCATIONS)

    @property
    def access_s(self) -> int:
        """How long an access token is good for, seconds."""
        return min(self.settings.access_token_s, MAX_ACCESS_S)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a device signs in with from now on. expires_in: seconds, of the access token."""

    access_token: str
    expires_in: int
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device that was enrolled just now."""

    device_id: str
    technician_id: str
    scopes: tuple[str, ...]
    tokens: Tokens
    feed_epoch: int


# -- enrolling ----------------------------------------------------------------------------------------------------


def create_code(
    desk: Desk, actor: Actor, technician_id: str, note: str | None, correlation_id: str | None = None
) -> tuple[str, int]:
    """A code for one device of this technician, and when it expires (ms). It is shown this once.

    Raises UnknownTechnician, also for one out of the actor's reach.
    """
    code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_CHARS))
    now = desk.clock()
    expires_at = now + 1000 * desk.settings.enrolment_code_s
    with transaction(desk.engine) as connection:
        technician = enrolment.find_technician(connection, technician_id)
        if technician is None or not actor.sees(technician.scopes):
            raise UnknownTechnician()
        enrolment.add_code(connection, _hash(desk, code), technician_id, note, expires_at)
        _audit(connection, now, actor.name, "enrolment_code.create", f"technician:{technician_id}", {}, correlation_id)
    return "-".join(code[at : at + 4] for at in range(0, CODE_CHARS, 4)), expires_at


def enrol(
    desk: Desk, code: str, *, name: str, platform: str, app_version: str, public_key: Any = None,
    correlation_id: str | None = None,
) -> Enrolled:  # fmt: skip
    """A new device for the technician that the code was made for. Raises InvalidGrant, UnknownTechnician."""
    now, device_id, family = desk.clock(), f"d_{secrets.token_hex(16)}", f"f_{secrets.token_hex(16)}"
    with transaction(desk.engine) as connection:
        technician_id = enrolment.take_code(connection, _hash(desk, code), now)
        if technician_id is None:
            raise InvalidGrant()
        technician = enrolment.find_technician(connection, technician_id)
        if technician is None:
            raise UnknownTechnician()
        device = {
            "id": device_id, "technician_id": technician_id, "name": name, "platform": platform,
            "app_version": app_version, "enrolled_at": now, "last_seen": now,
            "public_key": public_key if isinstance(public_key, str) or public_key is None else json.dumps(public_key),
        }  # fmt: skip
        enrolment.add_device(connection, device)
        enrolment.add_family(connection, family, device_id, technician_id, 1)
        detail = {"technician_id": technician_id, "platform": platform, "app_version": app_version}
        _audit(connection, now, f"device:{device_id}", "device.enrol", f"device:{device_id}", detail, correlation_id)
        epoch = enrolment.current_epoch(connection)
    scopes = enrolment.device_scopes(technician_id, technician.depot_id)
    return Enrolled(device_id, technician_id, scopes, _tokens(desk, family, device_id, technician_id, 1, now), epoch)


def normalised(code: str) -> str:
    """A code as it was made, however it was typed."""
    return code.upper().translate(_LOOKALIKES)


def _hash(desk: Desk, code: str) -> bytes:
    """Keyed, so that the table alone does not tell which codes are good."""
    return blake2b(
        normalised(code).encode("utf-8", "replace"),
        key=desk.keys.cursor_secret,
        digest_size=32,
        person=b"enrolment code",
    ).digest()


# -- staying signed in --------------------------------------------------------------------------------------------


def refresh(desk: Desk, token: str, app_version: str = "", correlation_id: str | None = None) -> Tokens:
    """The tokens that follow `token`. Raises InvalidGrant, or DeviceRevoked with `reason`."""
    now = desk.clock()
    claims = verify_refresh(desk.keys, token, now=now / 1000, issuer=desk.settings.issuer)
    with transaction(desk.engine) as connection:
        family = enrolment.lock_family(connection, claims.family)
        counter = (
            _adopt(desk, connection, claims, app_version, now, correlation_id)
            if family is None
            else _advance(desk, connection, claims, family, now, correlation_id)
        )
    if counter is None:  # after the commit: the end of the family has to stay
        raise InvalidGrant("This token was used before. Enrol the device again; work that is still on it is kept.")
    return _tokens(desk, claims.family, claims.device, claims.technician, counter, now)


def _advance(
    desk: Desk, connection: Transaction, claims: RefreshClaims, family: enrolment.Family, now: int,
    correlation_id: str | None,
) -> int | None:  # fmt: skip
    """The counter of the token to give, None if the one presented was copied."""
    device = enrolment.find_device_access(connection, family.device_id)
    if device is not None and device.revoked:
        raise DeviceRevoked(reason=device.revoked)
    if device is None or family.revoked_at is not None or family.device_id != claims.device:
        raise InvalidGrant()
    if claims.counter == family.counter - 1:
        return family.counter  # the answer was lost
    if claims.counter < family.counter:
        enrolment.revoke_family(connection, claims.family, now)
        detail = {"family": claims.family, "presented": claims.counter, "issued": family.counter}
        subject = f"device:{claims.device}"
        _audit(connection, now, subject, "refresh_family.revoke", subject, detail, correlation_id)
        desk.revocations.append(now, family=claims.family, device=None, reason="reuse")
        return None
    enrolment.advance_family(connection, claims.family, claims.counter + 1)
    return claims.counter + 1


def _adopt(
    desk: Desk, connection: Transaction, claims: RefreshClaims, app_version: str, now: int, correlation_id: str | None
) -> int:
    """Take over a family that we issued in a timeline that was lost."""
    device = enrolment.find_device_access(connection, claims.device)
    revoked = device.revoked if device else desk.revocations.of_device(claims.device)
    if revoked:
        raise DeviceRevoked(reason=revoked)
    if desk.revocations.has_family(claims.family) or (device and device.technician_id != claims.technician):
        raise InvalidGrant()
    if device is None:
        values = {
            "id": claims.device, "technician_id": claims.technician, "name": "", "platform": "",
            "app_version": app_version, "enrolled_at": now, "last_seen": now,
        }  # fmt: skip
        enrolment.add_device(connection, values)
    enrolment.add_family(connection, claims.family, claims.device, claims.technician, claims.counter + 1)
    detail = {"technician_id": claims.technician, "family": claims.family}
    subject = f"device:{claims.device}"
    _audit(connection, now, subject, "device.adopt", subject, detail, correlation_id)
    return claims.counter + 1


def _tokens(desk: Desk, family: str, device_id: str, technician_id: str, counter: int, now: int) -> Tokens:
    access = issue_access(
        desk.keys,
        subject=f"device:{device_id}",
        role="technician",
        scopes=(),  # a device's scopes come from its row
        now=now / 1000,
        lifetime_s=desk.access_s,
        issuer=desk.settings.issuer,
    )
    # Dated to the day, so that a token given again after a lost answer is the same one, to the byte.
    issued_at = now // 1000 // _DAY_S * _DAY_S
    refresh_token = issue_refresh(
        desk.keys,
        family=family,
        device=device_id,
        technician=technician_id,
        counter=counter,
        now=issued_at,
        issuer=desk.settings.issuer,
    )
    return Tokens(access, desk.access_s, refresh_token)


# -- integrations -------------------------------------------------------------------------------------------------


def create_client(desk: Desk, *, name: str, system: str, scopes: tuple[str, ...], by: str) -> tuple[str, str]:
    """The id and secret of a new client, shown this once. system: whose word its writes are. by: who made it."""
    client_id, secret, now = f"cl_{secrets.token_hex(8)}", secrets.token_urlsafe(32), desk.clock()
    role = "integration"
    row = {
        "id": client_id, "secret_hash": sha256(secret.encode()).digest(), "name": name, "role": role,
        "system": system, "scopes": list(scopes), "created_at": now,
    }  # fmt: skip
    with transaction(desk.engine) as connection:
        enrolment.add_client(connection, row)
        _audit(connection, now, by, "client.create", f"client:{client_id}", {"role": role, "system": system}, None)
    return client_id, secret


def client_token(desk: Desk, client_id: str, secret: str, correlation_id: str | None = None) -> tuple[str, int]:
    """An access token for an integration, and for how many seconds. Raises InvalidGrant."""
    now = desk.clock()
    with transaction(desk.engine) as connection:
        client = enrolment.find_client(connection, client_id)
        # The secret has 256 random bits: a plain hash is as good as a slow one, and a wrong id costs the same.
        known = client.secret_hash if client else bytes(32)
        right = hmac.compare_digest(sha256(secret.encode("utf-8", "replace")).digest(), known)
        if client is None or not right or client.revoked_at is not None:
            raise InvalidGrant()
        subject = f"system:{client.id}"
        _audit(connection, now, subject, "client.token", f"client:{client.id}", {"role": client.role}, correlation_id)
    token = issue_access(
        desk.keys,
        subject=subject,
        role=client.role,
        scopes=client.scopes,
        system=client.system,
        now=now / 1000,
        lifetime_s=desk.access_s,
        issuer=desk.settings.issuer,
    )
    return token, desk.access_s


# -- shutting out -------------------------------------------------------------------------------------------------


def revoke(desk: Desk, actor: Actor, device_id: str, reason: Reason, correlation_id: str | None = None) -> None:
    """Shut a device out from its next request on. Raises NotFound, also for one out of the actor's reach."""
    now = desk.clock()
    with transaction(desk.engine) as connection:
        device = enrolment.find_device_access(connection, device_id)
        technician = enrolment.find_technician(connection, device.technician_id) if device else None
        if device is None or not actor.sees(technician.scopes if technician else ()):
            raise NotFound()
        enrolment.revoke_device(connection, device_id, reason, now)
        _audit(connection, now, actor.name, "device.revoke", f"device:{device_id}", {"reason": reason}, correlation_id)
        # Before the commit: a line too many shuts out a device that an error message says was not; one too few would
        # let it in again after a restore.
        desk.revocations.append(now, family=None, device=device_id, reason=reason)


@dataclass(frozen=True, slots=True)
class Revocations:
    """The file of revocations, outside the database, so that restoring a backup does not undo them.

    One JSON object a line: `{"at": ms, "device": id | null, "family": id | null, "reason": …}`.
    """

    path: Path

    def append(self, at: int, *, family: str | None, device: str | None, reason: str) -> None:
        """Add a line, and wait until it is on the disk."""
        line = json.dumps({"at": at, "device": device, "family": family, "reason": reason}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())  # one write: lines of several processes do not mix
            os.fsync(file)
        finally:
            os.close(file)

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """All of them, oldest first. A line that was cut off by a crash is passed over."""
        try:
            lines = self.path.read_text().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    def of_device(self, device_id: str) -> Reason | None:
        """Why a device was shut out, None if it was not."""
        reasons = {entry["reason"] for entry in self.entries() if entry.get("device") == device_id}
        if "lost" in reasons:
            return "lost"
        return "retired" if reasons else None

    def has_family(self, family: str) -> bool:
        """Was this family of refresh tokens ended?"""
        return any(entry.get("family") == family for entry in self.entries())


def apply_revocations(desk: Desk) -> int:
    """Revoke again what the file names, after a restore; how many lines there were. Safe to run at any time."""
    entries = list(desk.revocations.entries())
    with transaction(desk.engine) as connection:
        for entry in entries:
            if entry.get("device"):
                enrolment.revoke_device(connection, entry["device"], entry["reason"], entry["at"])
            if entry.get("family"):
                enrolment.revoke_family(connection, entry["family"], entry["at"])
    return len(entries)


def _audit(
    connection: Transaction, now: int, actor: str, action: str, subject: str, detail: Mapping[str, Any],
    correlation_id: str | None,
) -> None:  # fmt: skip
    entry = {
        "actor": actor, "action": action, "subject": subject, "detail": detail, "correlation_id": correlation_id,
    }  # fmt: skip
    enrolment.audit(connection, now, entry)
