"""Only tokens that we signed, of the right kind and in their time, are believed; and keys are kept from other users."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from server.services.keys import KeyRing
from server.services.tokens import (
    Claims,
    RefreshClaims,
    VerifiedTokens,
    issue_access,
    issue_refresh,
    verify_access,
    verify_refresh,
)
from sync.errors import InvalidGrant, Unauthorized

NOW = 1_800_000_000.5
ISSUER = "https://backhaul.example"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing.open(tmp_path_factory.mktemp("server") / "keys")


def good_claims(**changed: Any) -> dict[str, Any]:
    """What a good token says, with members changed; None takes one out."""
    now = int(NOW)
    claims = {
        "iss": ISSUER,
        "aud": "backhaul",
        "sub": "user:ada",
        "jti": "j1",
        "iat": now,
        "exp": now + 900,
        "role": "dispatcher",
        "scopes": ["*"],
    }
    return {name: value for name, value in (claims | changed).items() if value is not None}


def sealed(keys: KeyRing, claims: Any, headers: dict[str, Any] | None = None) -> str:
    """A token with a good signature of the server's own key, whatever it says."""
    header = {"typ": "at+jwt", "kid": keys.current.kid} | (headers or {})
    return jwt.PyJWS().encode(json.dumps(claims).encode(), keys.current.private, "ES256", header)


def raw(header: Any, claims: Any, signature: bytes = b"\x01" * 64) -> str:
    """A token put together by hand."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def public_pem(keys: KeyRing) -> bytes:
    return keys.current.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def hs256(keys: KeyRing, secret: bytes, digest: str = "sha256", alg: str = "HS256") -> str:
    """Signed symmetrically with what anybody can know."""
    token = raw({"typ": "at+jwt", "alg": alg, "kid": keys.current.kid}, good_claims(), b"")
    signature = hmac.new(secret, token[:-1].encode(), digest).digest()
    return token + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def sealed_by_stranger(keys: KeyRing, private: Any, alg: str, **headers: Any) -> str:
    header = {"typ": "at+jwt", "kid": keys.current.kid} | headers
    return jwt.PyJWS().encode(json.dumps(good_claims()).encode(), private, alg, header)


def good(keys: KeyRing) -> str:
    return issue_access(keys, subject="user:ada", role="dispatcher", scopes=["*"], now=NOW, issuer=ISSUER)


def with_part(token: str, index: int, part: str) -> str:
    parts = token.split(".")
    parts[index] = part
    return ".".join(parts)


def with_claims(token: str, claims: dict[str, Any]) -> str:
    return with_part(token, 1, raw({}, claims).split(".")[1])


def flipped(token: str, at: int) -> str:
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


STRANGER = ec.generate_private_key(ec.SECP256R1())
STRANGER_JWK = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(STRANGER.public_key()))
ALG_KID = {"alg": "ES256", "typ": "at+jwt"}

FORGED: dict[str, Callable[[KeyRing], str]] = {
    # the algorithm
    "alg none": lambda k: raw({"alg": "none", "typ": "at+jwt", "kid": k.current.kid}, good_claims(), b""),
    "alg None": lambda k: raw({"alg": "None", "typ": "at+jwt", "kid": k.current.kid}, good_claims(), b""),
    "alg none with a signature": lambda k: raw({"alg": "none", "typ": "at+jwt", "kid": k.current.kid}, good_claims()),
    "alg missing": lambda k: raw({"typ": "at+jwt", "kid": k.current.kid}, good_claims()),
    "alg a list": lambda k: raw({"alg": ["ES256"], "typ": "at+jwt", "kid": k.current.kid}, good_claims()),
    "HS256 with the public PEM": lambda k: hs256(k, public_pem(k)),
    "HS256 with the PEM and a space": lambda k: hs256(k, public_pem(k) + b" "),
    "HS256 with the JWK": lambda k: hs256(k, json.dumps(k.jwks()["keys"][0]).encode()),
    "HS256 with nothing": lambda k: hs256(k, b""),
    "HS512 with the public PEM": lambda k: hs256(k, public_pem(k), "sha512", "HS512"),
    "an HS512 digest called ES256": lambda k: hs256(k, public_pem(k), "sha512", "ES256"),
    "RS256 of a stranger": lambda k: sealed_by_stranger(k, rsa.generate_private_key(65537, 2048), "RS256"),
    "EdDSA of a stranger": lambda k: sealed_by_stranger(k, ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    "ES384 of a stranger": lambda k: sealed_by_stranger(k, ec.generate_private_key(ec.SECP384R1()), "ES384"),
    "ES256 of a stranger": lambda k: sealed_by_stranger(k, STRANGER, "ES256"),
    # the signature
    "r and s zero": lambda k: raw({**ALG_KID, "kid": k.current.kid}, good_claims(), b"\x00" * 64),
    "r and s too large": lambda k: raw({**ALG_KID, "kid": k.current.kid}, good_claims(), b"\xff" * 64),
    "no signature": lambda k: with_part(good(k), 2, ""),
    "half a signature": lambda k: good(k)[:-43],
    "a flipped signature": lambda k: flipped(good(k), -40),
    "padding": lambda k: good(k) + "==",
    "other claims": lambda k: with_claims(good(k), good_claims(role="admin")),
    "a flipped claim": lambda k: flipped(good(k), good(k).index(".") + 20),
    "a flipped header": lambda k: flipped(good(k), 5),
    # the header
    "no typ": lambda k: sealed(k, good_claims(), {"typ": None}),
    "typ JWT": lambda k: sealed(k, good_claims(), {"typ": "JWT"}),
    "typ in capitals": lambda k: sealed(k, good_claims(), {"typ": "AT+JWT"}),
    "typ with its long name": lambda k: sealed(k, good_claims(), {"typ": "application/at+jwt"}),
    "typ of a refresh token": lambda k: sealed(k, good_claims(), {"typ": "refresh+jwt"}),
    "a refresh token": lambda k: refresh(k),
    "no kid": lambda k: raw(ALG_KID, good_claims()),
    "kid null": lambda k: raw({**ALG_KID, "kid": None}, good_claims()),
    "kid a number": lambda k: raw({**ALG_KID, "kid": 1}, good_claims()),
    "kid a list": lambda k: raw({**ALG_KID, "kid": [k.current.kid]}, good_claims()),
    "kid a path": lambda k: sealed(k, good_claims(), {"kid": "../../../../dev/null"}),
    "kid the file's name": lambda k: sealed(k, good_claims(), {"kid": "es256-0001.pem"}),
    "kid SQL": lambda k: sealed(k, good_claims(), {"kid": "x' UNION SELECT 'key"}),
    "kid empty": lambda k: sealed(k, good_claims(), {"kid": ""}),
    "kid unknown": lambda k: sealed(k, good_claims(), {"kid": "A" * 43}),
    "jku": lambda k: sealed(k, good_claims(), {"jku": "https://evil.example/jwks.json"}),
    "x5u": lambda k: sealed(k, good_claims(), {"x5u": "https://evil.example/cert"}),
    "x5c": lambda k: sealed(k, good_claims(), {"x5c": ["MIIB"]}),
    "jwk of a stranger": lambda k: sealed_by_stranger(k, STRANGER, "ES256", jwk=STRANGER_JWK),
    "crit unknown": lambda k: sealed(k, good_claims(), {"crit": ["exp"], "exp": 1}),
    "crit empty": lambda k: raw({**ALG_KID, "kid": k.current.kid, "crit": []}, good_claims()),
    "b64 false": lambda k: raw({**ALG_KID, "kid": k.current.kid, "b64": False, "crit": ["b64"]}, good_claims()),
    "b64 false without crit": lambda k: raw({**ALG_KID, "kid": k.current.kid, "b64": False}, good_claims()),
    "any other member": lambda k: sealed(k, good_claims(), {"cty": "JWT"}),
    "header a list": lambda k: raw([1], good_claims()),
    # the claims, under a good signature
    "iss missing": lambda k: sealed(k, good_claims(iss=None)),
    "iss other": lambda k: sealed(k, good_claims(iss="https://backhaul.example.evil")),
    "iss with a slash": lambda k: sealed(k, good_claims(iss=ISSUER + "/")),
    "iss a list": lambda k: sealed(k, good_claims(iss=[ISSUER])),
    "aud missing": lambda k: sealed(k, good_claims(aud=None)),
    "aud other": lambda k: sealed(k, good_claims(aud="billing")),
    "aud a list": lambda k: sealed(k, good_claims(aud=["backhaul"])),
    "aud of two": lambda k: sealed(k, good_claims(aud=["backhaul", "billing"])),
    "sub missing": lambda k: sealed(k, good_claims(sub=None)),
    "sub a number": lambda k: sealed(k, good_claims(sub=7)),
    "sub empty": lambda k: sealed(k, good_claims(sub="")),
    "jti missing": lambda k: sealed(k, good_claims(jti=None)),
    "jti a number": lambda k: sealed(k, good_claims(jti=1)),
    "iat missing": lambda k: sealed(k, good_claims(iat=None)),
    "iat in the future": lambda k: sealed(k, good_claims(iat=int(NOW) + 62, exp=int(NOW) + 700)),
    "iat a text": lambda k: sealed(k, good_claims(iat=str(int(NOW)))),
    "iat negative": lambda k: sealed(k, good_claims(iat=-1, exp=899)),
    "exp missing": lambda k: sealed(k, good_claims(exp=None)),
    "exp now": lambda k: sealed(k, good_claims(iat=int(NOW) - 800, exp=int(NOW))),
    "exp past": lambda k: sealed(k, good_claims(iat=int(NOW) - 1000, exp=int(NOW) - 100)),
    "exp 1e300": lambda k: sealed(k, good_claims(exp=1e300)),
    "exp infinite": lambda k: sealed(k, good_claims(exp=float("inf"))),
    "exp not a number": lambda k: sealed(k, good_claims(exp=float("nan"))),
    "exp negative": lambda k: sealed(k, good_claims(exp=-1)),
    "exp a bool": lambda k: sealed(k, good_claims(exp=True)),
    "exp a float": lambda k: sealed(k, good_claims(exp=NOW + 100)),
    "exp a text": lambda k: sealed(k, good_claims(exp=str(int(NOW) + 100))),
    "exp huge": lambda k: sealed(k, good_claims(exp=10**400)),
    "exp too far": lambda k: sealed(k, good_claims(exp=int(NOW) + 901)),
    "exp before iat": lambda k: sealed(k, good_claims(iat=int(NOW) + 50, exp=int(NOW) + 40)),
    "nbf in the future": lambda k: sealed(k, good_claims(nbf=int(NOW) + 300)),
    "nbf a text": lambda k: sealed(k, good_claims(nbf="0")),
    "role missing": lambda k: sealed(k, good_claims(role=None)),
    "role a list": lambda k: sealed(k, good_claims(role=["admin"])),
    "scopes missing": lambda k: sealed(k, good_claims(scopes=None)),
    "scopes a text": lambda k: sealed(k, good_claims(scopes="*")),
    "scopes of numbers": lambda k: sealed(k, good_claims(scopes=[1])),
    "system a number": lambda k: sealed(k, good_claims(system=1)),
    "claims a list": lambda k: sealed(k, [1]),
    "claims null": lambda k: sealed(k, None),
    "claims nested too deep": lambda k: sealed(k, json.loads("[" * 500 + "]" * 500)),
    # no token at all
    "empty": lambda k: "",
    "two parts": lambda k: ".".join(good(k).split(".")[:2]),
    "four parts": lambda k: good(k) + ".e30",
    "five parts, as if encrypted": lambda k: good(k) + ".e30.e30",
    "a line break": lambda k: good(k) + "\n",
    "letters of another alphabet": lambda k: good(k).replace("e", "е"),
    "half a surrogate pair": lambda k: good(k) + "\ud800",
    "very long": lambda k: sealed(k, good_claims(sub="user:" + "a" * 5_000)),
}


def refresh(keys: KeyRing, **changed: Any) -> str:
    given: dict[str, Any] = {
        "family": "f1",
        "device": "d1",
        "technician": "T-1",
        "counter": 3,
        "now": NOW,
        "issuer": ISSUER,
    } | changed
    return issue_refresh(keys, **given)


def test_what_was_issued_is_read_back(keys: KeyRing) -> None:
    token = issue_access(
        keys,
        subject="system:sap",
        role="integration",
        scopes=["depot:D1"],
        system="erp",
        now=NOW,
        lifetime_s=60,
        issuer=ISSUER,
    )

    claims = verify_access(keys, token, now=NOW + 1, issuer=ISSUER)

    assert dataclasses.replace(claims, jti="") == Claims(
        "system:sap", "integration", ("depot:D1",), "erp", int(NOW) + 60, jti=""
    )


def test_no_two_access_tokens_have_the_same_name(keys: KeyRing) -> None:
    one, two = (verify_access(keys, good(keys), now=NOW, issuer=ISSUER) for _ in range(2))

    assert one.jti != two.jti


def test_a_token_that_is_good_but_made_by_hand_is_accepted_so_the_forgeries_fail_for_their_own_reason(
    keys: KeyRing,
) -> None:
    assert verify_access(keys, sealed(keys, good_claims()), now=NOW, issuer=ISSUER).role == "dispatcher"
    assert verify_access(keys, sealed(keys, good_claims(iat=int(NOW) + 59)), now=NOW, issuer=ISSUER)


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_or_odd_token_is_refused_and_not_told_why(keys: KeyRing, name: str) -> None:
    token, verified = FORGED[name](keys), VerifiedTokens()

    for _ in range(2):  # the second time the cache could know it
        with pytest.raises(Unauthorized) as caught:
            verify_access(keys, token, now=NOW, issuer=ISSUER, verified=verified)

        assert (caught.value.detail, caught.value.extras) == (Unauthorized().detail, {})


def test_a_lifetime_is_cut_to_fifteen_minutes(keys: KeyRing) -> None:
    token = issue_access(keys, subject="user:a", role="admin", scopes=[], now=NOW, lifetime_s=10**9, issuer=ISSUER)

    assert verify_access(keys, token, now=NOW, issuer=ISSUER).expires_at == int(NOW) + 900


def test_an_access_token_is_no_refresh_token(keys: KeyRing) -> None:
    with pytest.raises(InvalidGrant):
        verify_refresh(keys, good(keys), now=NOW, issuer=ISSUER)


# -- refresh tokens -----------------------------------------------------------------------------------------------


def test_a_refresh_token_names_family_device_technician_and_counter(keys: KeyRing) -> None:
    claims = verify_refresh(keys, refresh(keys), now=NOW + 86_400 * 179, issuer=ISSUER)

    assert claims == RefreshClaims("f1", "d1", "T-1", 3, expires_at=int(NOW) + 86_400 * 180)


def test_the_same_refresh_token_can_be_given_again_when_the_answer_was_lost(keys: KeyRing) -> None:
    assert refresh(keys) == refresh(keys)
    assert refresh(keys) != refresh(keys, counter=4)


@pytest.mark.parametrize(
    "changed",
    [{"counter": True}, {"counter": -1}, {"counter": 1.0}, {"family": ""}, {"device": 3}, {"technician": None}],
)
def test_a_refresh_token_that_says_nonsense_is_refused(keys: KeyRing, changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidGrant):
        verify_refresh(keys, refresh(keys, **changed), now=NOW, issuer=ISSUER)


def test_a_refresh_token_ends_after_half_a_year(keys: KeyRing) -> None:
    with pytest.raises(InvalidGrant):
        verify_refresh(keys, refresh(keys), now=NOW + 86_400 * 180, issuer=ISSUER)


def test_a_device_that_was_away_for_three_rotations_still_gets_in(tmp_path: Path) -> None:
    keys = KeyRing.open(tmp_path / "keys")
    token = refresh(keys)

    for _ in range(3):
        keys.rotate()

    assert verify_refresh(keys, token, now=NOW, issuer=ISSUER).counter == 3


# -- the cache of verified tokens ---------------------------------------------------------------------------------


def test_a_token_verified_before_still_ends_in_its_time(keys: KeyRing) -> None:
    token, verified = good(keys), VerifiedTokens()
    verify_access(keys, token, now=NOW, issuer=ISSUER, verified=verified)

    assert verify_access(keys, token, now=NOW + 899, issuer=ISSUER, verified=verified)
    with pytest.raises(Unauthorized):
        verify_access(keys, token, now=NOW + 900, issuer=ISSUER, verified=verified)


def test_a_token_verified_before_is_refused_once_its_key_is_gone(tmp_path: Path) -> None:
    keys, verified = KeyRing.open(tmp_path / "keys"), VerifiedTokens()
    token = good(keys)
    verify_access(keys, token, now=NOW, issuer=ISSUER, verified=verified)
    keys.rotate()

    (tmp_path / "keys" / "es256-0001.pem").unlink()

    with pytest.raises(Unauthorized):
        verify_access(keys, token, now=NOW, issuer=ISSUER, verified=verified)


def test_the_cache_spares_the_signature_and_never_grows_beyond_its_bound(
    keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = VerifiedTokens(capacity=2)
    tokens = [good(keys) for _ in range(3)]
    for token in tokens:
        verify_access(keys, token, now=NOW, issuer=ISSUER, verified=verified)

    assert verified.get(tokens[0]) is None
    monkeypatch.setattr("server.services.tokens._verify_signature", lambda *_: pytest.fail("verified again"))
    assert verify_access(keys, tokens[2], now=NOW, issuer=ISSUER, verified=verified)


# -- the key folder -----------------------------------------------------------------------------------------------


def test_a_first_start_makes_keys_that_only_the_owner_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "backhaul" / "keys"

    KeyRing.open(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {"es256-0001.pem", "cursor.secret", ".lock"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_a_restart_finds_the_same_keys(tmp_path: Path) -> None:
    first, second = KeyRing.open(tmp_path / "keys"), KeyRing.open(tmp_path / "keys")

    assert first.jwks() == second.jwks()
    assert first.cursor_secret == second.cursor_secret
    assert len(first.cursor_secret) == 32


def _open_and_tell(folder: Path) -> tuple[Any, bytes]:
    ring = KeyRing.open(folder)
    return ring.jwks(), ring.cursor_secret


def test_processes_that_start_together_agree_on_one_set_of_keys(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        told = pool.map(_open_and_tell, [tmp_path / "keys"] * 8, chunksize=1)

    assert all(one == told[0] for one in told)
    assert len(told[0][0]["keys"]) == 1


def test_a_rotation_by_one_process_is_seen_by_another(tmp_path: Path) -> None:
    here, there = KeyRing.open(tmp_path / "keys"), KeyRing.open(tmp_path / "keys")
    before = good(here)

    there.rotate()

    assert here.current.kid == there.current.kid
    assert verify_access(here, good(there), now=NOW, issuer=ISSUER)
    assert verify_access(there, before, now=NOW, issuer=ISSUER)


def test_the_key_set_shows_public_halves_only_newest_first(tmp_path: Path) -> None:
    keys = KeyRing.open(tmp_path / "keys")
    keys.rotate()

    shown = keys.jwks()["keys"]

    assert [set(key) for key in shown] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}] * 2
    assert shown[0]["kid"] == keys.current.kid
    assert jwt.PyJWK(shown[0]).key.public_numbers() == keys.current.public.public_numbers()


def test_a_key_is_named_by_its_rfc_7638_thumbprint(keys: KeyRing) -> None:
    jwk = keys.jwks()["keys"][0]
    required = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))

    digest = hashlib.sha256(required.encode()).digest()

    assert jwk["kid"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.mark.parametrize("name", ["", "es256-0001.pem", "cursor.secret"])
def test_a_folder_or_key_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "keys"
    KeyRing.open(folder)
    (folder / name).chmod(0o755)

    with pytest.raises(PermissionError, match="run chmod"):
        KeyRing.open(folder)


def test_a_damaged_secret_or_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    KeyRing.open(tmp_path / "one")
    (tmp_path / "one" / "cursor.secret").write_bytes(b"short")
    KeyRing.open(tmp_path / "two")
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "two" / "es256-0001.pem").write_bytes(pem)

    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing.open(tmp_path / "one")
    with pytest.raises(ValueError, match="P-256"):
        KeyRing.open(tmp_path / "two")
