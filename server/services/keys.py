"""The server's keys: ES256 pairs that sign tokens, and the secret that signs cursors. A folder of files, made once.

`es256-0001.pem`, `es256-0002.pem` …: the highest number signs, all verify, so a device that was away for months still
shows a token that is known. Deleting a file revokes what it signed. No file is ever changed in place, so their names
tell every process whether it knows the present set: a rotation or revocation by another process is seen at once.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_SECRET_FILE: Final = "cursor.secret"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class SigningKey:
    """One ES256 pair. kid: the thumbprint of its public half (RFC 7638), so that it can never name another key."""

    kid: str
    private: ec.EllipticCurvePrivateKey
    jwk: dict[str, str]

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        return self.private.public_key()


class KeyRing:
    """The keys of one folder. Safe to share between threads."""

    def __init__(self, folder: Path, cursor_secret: bytes) -> None:
        """Use `KeyRing.open`. cursor_secret: 32 bytes, the same for every process and for ever."""
        self.folder = folder
        self.cursor_secret = cursor_secret
        self._known: tuple[tuple[str, ...], tuple[SigningKey, ...]] = ((), ())

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The keys in `folder`, made if there are none; processes that start together agree on one set.

        Raises PermissionError if others than the owner can read the folder or a file in it.
        """
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        _refuse_readable(folder, advice="chmod 700")
        with _locked(folder):
            if not _names(folder):
                _write_new_key(folder)
            if not (folder / _SECRET_FILE).exists():
                _write_private(folder / _SECRET_FILE, secrets.token_bytes(_SECRET_BYTES))
        ring = cls(folder, _read_secret(folder / _SECRET_FILE))
        ring._keys()
        return ring

    @property
    def current(self) -> SigningKey:
        """The newest key: it signs."""
        return self._keys()[-1]

    def find(self, kid: str) -> SigningKey | None:
        """The key of that id, if it is one of ours and still trusted. A lookup in memory, never a path."""
        return next((key for key in self._keys() if key.kid == kid), None)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public halves as a JWK set (RFC 7517), newest first."""
        return {"keys": [dict(key.jwk) for key in reversed(self._keys())]}

    def rotate(self) -> SigningKey:
        """Adds a key, which signs from now on in every process; the others go on verifying."""
        with _locked(self.folder):
            _write_new_key(self.folder)
        return self.current

    def _keys(self) -> tuple[SigningKey, ...]:
        names = _names(self.folder)
        known, keys = self._known
        if names != known:
            keys = tuple(_read_key(self.folder / name) for name in names)
            self._known = (names, keys)  # one assignment: another thread sees the old pair or the new one
        if not keys:
            raise FileNotFoundError(f"{self.folder} holds no es256-*.pem any more; start the server again to make one")
        return keys


def _names(folder: Path) -> tuple[str, ...]:
    """Oldest first. Listing a folder of a few files costs 5 µs; verifying a signature, 100."""
    found = (name for name in os.listdir(folder) if name.startswith("es256-") and name.endswith(".pem"))
    return tuple(sorted(found, key=_ordinal))


def _ordinal(name: str) -> int:
    return int(name.removeprefix("es256-").removesuffix(".pem"))


def _write_new_key(folder: Path) -> None:
    ordinal = max(map(_ordinal, _names(folder)), default=0) + 1
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_private(folder / f"es256-{ordinal:04}.pem", pem)


def _read_key(path: Path) -> SigningKey:
    _refuse_readable(path, advice="chmod 600")
    private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ValueError(f"{path} is not a P-256 key")
    numbers = private.public_key().public_numbers()
    x, y = (base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    # RFC 7638 §3.2: these members, in this order, without spaces.
    kid = base64url(hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())
    jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256", "use": "sig"}
    return SigningKey(kid, private, jwk)


def _read_secret(path: Path) -> bytes:
    _refuse_readable(path, advice="chmod 600")
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise ValueError(f"{path} must hold {_SECRET_BYTES} bytes, it holds {len(secret)}")
    return secret


def base64url(raw: bytes) -> str:
    """Base64url without padding, as in RFC 7515."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# -- files that only the owner reads ------------------------------------------------------------------------------


def _write_private(path: Path, content: bytes) -> None:
    """Whole or not at all: a process killed half-way leaves a name that nobody looks for."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def _refuse_readable(path: Path, *, advice: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise PermissionError(f"{path} is open to other users (mode {mode:04o}) and holds keys: run {advice} {path}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time. The kernel lets go when the process ends, however it ends."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
