"""Section 0: what holds for every call, and what a hostile body gets."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from typing import Any

import httpx
import jwt
import pytest
import zstandard

from tests.acceptance.client import (
    PROBLEM,
    Api,
    Company,
    Device,
    Json,
    Server,
    hold_to_the_conventions,
    is_moment,
    new_id,
    now,
    ok,
    refused,
)

LISTS = [
    "technicians",
    "locations",
    "parts",
    "work-orders",
    "tasks",
    "notes",
    "toolkit-items",
    "part-consumptions",
    "discrepancies",
    "rmas",
    "conflicts",
    "devices",
    "audit",
]

EIGHT_MIB = 8 * 1024 * 1024
CHECKED = zstandard.ZstdCompressor(write_checksum=True)


def note_body(device: Device, work_order: str, text: str, extra: str = "") -> str:
    """A push that would be fine, as JSON text, with room for something that is not."""
    patch = json.dumps({"parent": {"entity": "work_order", "id": work_order}, "text": text})
    return (
        f'{{"replica":"{device.replica}","schema":1,"sent_at":"{now()}","mutations":[{{"n":1,"entity":"note",'
        f'"id":"{new_id("N")}","op":"create","patch":{patch},"base":{{}},"occurred_at":"{now()}"{extra}}}]}}'
    )


def raw(api: Api, body: bytes | str, path: str = "/v1/push", **headers: str) -> httpx.Response:
    content = body.encode() if isinstance(body, str) else body
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return api.send("POST", path, content=content, headers=sent)


HOSTILE: dict[str, str] = {
    "a nesting of 65": ',"hint":' + "[" * 64 + "]" * 64,
    "a nesting of 100,000": ',"hint":' + "[" * 100_000 + "]" * 100_000,
    "a nesting of 65 objects": ',"hint":' + '{"a":' * 64 + "1" + "}" * 64,
    "a number of 20 digits": ',"hint":12345678901234567890',
    "a negative number of 20 digits": ',"hint":-12345678901234567890',
    "a number of 20 digits after the point": ',"hint":0.12345678901234567891',
    "a number of a million digits": ',"hint":' + "9" * 1_000_000,
    "NaN": ',"hint":NaN',
    "Infinity": ',"hint":Infinity',
    "-Infinity": ',"hint":-Infinity',
    "a number that overflows": ',"hint":1e400',
    "a duplicate key": ',"hint":1,"hint":2',
    "a duplicate key deep inside": ',"hint":[{"a":{"b":1,"b":1}}]',
    "a duplicate key written in another way": ',"hint":1,"\\u0068int":2',
    "NUL": ',"hint":"a\\u0000b"',
    "NUL in a key": ',"h\\u0000nt":1',
    "a lone high surrogate": ',"hint":"\\ud800"',
    "a lone low surrogate": ',"hint":"\\udfff"',
    "a lone surrogate in a key": ',"\\ud83d":1',
    "surrogates in the wrong order": ',"hint":"\\udc00\\ud800"',
    "a trailing comma": ',"hint":1,',
    "a control character": ',"hint":"\x01"',
    "a NUL byte": ',"hint":"\x00"',
    "a comment": ',"hint":1 /* no */',
    "single quotes": ",'hint':1",
    "a leading zero": ',"hint":01',
}


@pytest.fixture
def device(shared: Company) -> Device:
    """A new device of the shared company, which has pushed nothing yet."""
    made = shared.device()
    made.pull()
    return made


def assert_nothing_was_pushed(device: Device) -> None:
    assert not [row for row in device.pull() if row["entity"] == "note"]
    assert device.last["last_n"] == 0


def test_no_hostile_body_is_accepted_or_breaks_the_server(shared: Company, device: Device) -> None:
    work_order = shared.assigned()
    answers = {}
    for name, extra in HOSTILE.items():
        answer = raw(device.api, note_body(device, work_order, "x", extra))
        answers[name] = answer.status_code
        assert answer.status_code in {400, 413}, (name, answer.text)
        assert answer.json()["code"] in {"malformed", "too_large"}, (name, answer.text)
    assert_nothing_was_pushed(device)


def test_a_body_that_only_just_keeps_the_rules_is_accepted(shared: Company, device: Device) -> None:
    numbers = "[9007199254740991,-9007199254740991,0.123456789012345678]"
    fine = f',"hint":{"[" * 59}{numbers}{"]" * 59},"\\u00e4":"\\u0001\\ud83d\\ude00"'
    body = ok(raw(device.api, note_body(device, shared.assigned(), "x", fine)))
    assert [result["status"] for result in body["results"]] == ["applied"]


@pytest.mark.parametrize("path", ["push", "sync", "token", "devices", "enrolment-codes", "parts"])
def test_a_body_that_is_not_what_was_asked_for_is_refused(admin: Api, device: Device, path: str) -> None:
    caller = device.api if path in {"push", "sync"} else admin
    for body in (
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"7",
        b"{",
        b"{}",
        b"\xff\xfe",
        b'{"replica":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"\0",
    ):
        answer = raw(caller, body, f"/v1/{path}")
        assert answer.status_code in {400, 422} or (path, body) == ("sync", b"{}"), body


def test_a_wrong_content_type_is_no_500(shared: Company, device: Device) -> None:
    for content_type in ("text/plain", "application/xml", "application/json; charset=utf-16", ""):
        answer = raw(device.api, note_body(device, shared.assigned(), "x", ',"a":NaN'), Content_Type=content_type)
        assert answer.status_code in {400, 415}


def test_a_body_of_more_than_eight_mib_is_too_large(shared: Company, device: Device) -> None:
    work_order = shared.assigned()
    body = note_body(device, work_order, "x")
    answer = raw(device.api, body + " " * (EIGHT_MIB + 1 - len(body)))
    refused(answer, 413, "too_large")
    assert_nothing_was_pushed(device)
    exact = ok(raw(device.api, body + " " * (EIGHT_MIB - len(body))))
    assert exact["results"][0]["status"] == "applied"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_is_read(shared: Company, device: Device, encoding: str) -> None:
    plain = note_body(device, shared.assigned(), "x").encode()
    packed = gzip.compress(plain) if encoding == "gzip" else zstandard.compress(plain)
    answer = ok(raw(device.api, packed, Content_Encoding=encoding))
    assert answer["results"][0]["status"] == "applied"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [1_000_000, EIGHT_MIB + 1, 512 * 1024 * 1024], ids=["ratio", "just over", "bomb"])
def test_a_compression_bomb_is_refused(shared: Company, device: Device, encoding: str, size: int) -> None:
    body = note_body(device, shared.assigned(), "x").encode()
    if encoding == "gzip":
        packed = gzip.compress(body + b" " * min(size, 64 * 1024 * 1024))
    else:
        packed = zstandard.compress(body + b" " * size)
    started = time.monotonic()
    answer = raw(device.api, packed, Content_Encoding=encoding)
    assert answer.status_code in {400, 413}
    assert answer.json()["code"] in {"malformed", "too_large"}
    assert time.monotonic() - started < 5
    assert_nothing_was_pushed(device)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_broken_compressed_body_is_malformed(shared: Company, device: Device, encoding: str) -> None:
    plain = note_body(device, shared.assigned(), "x" * 5000).encode()
    packed = gzip.compress(plain) if encoding == "gzip" else CHECKED.compress(plain)
    flipped = bytearray(packed)
    flipped[len(flipped) // 2] ^= 0xFF
    for broken in (packed[: len(packed) // 2], plain, b"", packed[:3], packed + b"rubbish", bytes(flipped)):
        answer = raw(device.api, broken, Content_Encoding=encoding)
        assert answer.status_code in {400, 413}, broken[:20]
    assert_nothing_was_pushed(device)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x"])
def test_an_encoding_that_is_not_offered_is_refused(shared: Company, device: Device, encoding: str) -> None:
    answer = raw(device.api, note_body(device, shared.assigned(), "x"), Content_Encoding=encoding)
    refused(answer, 415, "unsupported_encoding")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_large_answer_comes_compressed_to_who_asks_for_it(server: Server, nobody: Api, encoding: str) -> None:
    with nobody.http.stream("GET", "/v1/openapi.json", headers={"Accept-Encoding": encoding}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["Content-Encoding"] == encoding
    plain = (
        gzip.decompress(packed)
        if encoding == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    )
    assert json.loads(plain)["openapi"]
    assert "Accept-Encoding" in answer.headers["Vary"]
    plain_answer = nobody.send("GET", "/v1/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain_answer.headers


def test_a_push_of_501_mutations_is_refused_and_one_of_500_is_not(shared: Company, device: Device) -> None:
    parent = {"entity": "work_order", "id": shared.assigned()}
    notes = [device.mutation("note", new_id("N"), "create", {"parent": parent, "text": "x"}) for _ in range(501)]
    answer = device.send(*notes)
    assert answer.status_code in {400, 413}
    assert answer.json()["code"] in {"malformed", "too_large"}
    assert_nothing_was_pushed(device)
    results = device.push(*notes[:500])
    assert {result["status"] for result in results} == {"applied"}
    assert [result["n"] for result in results] == list(range(1, 501))


def test_every_answer_carries_the_callers_correlation_id(nobody: Api) -> None:
    for path in ("/healthz", "/v1/openapi.json", "/v1/changes", "/v1/nothing-here", "/nowhere"):
        mine = new_id("corr")
        answer = nobody.send("GET", path, headers={"X-Correlation-Id": mine})
        assert answer.headers["X-Correlation-Id"] == mine


@pytest.mark.parametrize("hostile", ["x" * 10_000, "<script>", "a b", "", "ä".encode().decode("latin-1")])
def test_a_strange_correlation_id_does_no_harm(nobody: Api, hostile: str) -> None:
    answer = nobody.http.get("/v1/changes", headers={"X-Correlation-Id": hostile.encode("latin-1")})  # type: ignore[dict-item]
    hold_to_the_conventions(answer)
    assert answer.status_code in {400, 401}


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz?" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: x\r\n" * 200 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    ],
    ids=lambda text: repr(text[:70]),
)
def test_what_is_no_http_gets_a_problem_too(server: Server, text: bytes) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=5) as connection:
        connection.sendall(text)
        got = connection.recv(65_536).decode()
        head, _, body = got.partition("\r\n\r\n")
        while len(body.encode()) < int(re.findall(r"(?i)content-length: (\d+)", head)[0]):
            body += connection.recv(65_536).decode()
    lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    status = int(lines[0].split()[1])
    assert 400 <= status < 500, got
    assert headers["content-type"] == PROBLEM, got
    told = json.loads(body)
    assert (told["status"], told["correlation_id"]) == (status, headers["x-correlation-id"])


def test_errors_are_problems_wherever_they_happen(nobody: Api, admin: Api) -> None:
    refused(nobody.get("/nowhere"), 404, "not_found")
    refused(nobody.get("/v1/work-orders"), 401, "unauthorized")
    assert admin.send("PUT", "/v1/work-orders").status_code in {404, 405}
    assert admin.send("DELETE", "/v1/schema").status_code in {404, 405}
    assert admin.send("GET", "/v1/push").status_code in {404, 405}
    refused(admin.get("/v1/work-orders/none"), 404, "not_found")
    refused(admin.get("/v1/work-orders/" + "x" * 65), 404, "not_found")
    for path in ("work-orders/{}", "work-orders/{}/history", "conflicts/{}", "devices/{}"):
        for strange in ("%00", "a%00b", "%ff", "%F0%9F%98%80", "%0d%0a", "x" * 300):
            refused(admin.get(f"/v1/{path.format(strange)}"), 404, "not_found")
    refused(admin.patch("/v1/parts/%00", {"name": "x"}, If_Match='"1"'), 404, "not_found")
    refused(admin.delete("/v1/parts/%00", If_Match='"1"'), 404, "not_found")


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a/b", "a b", "ä", "a\n", None, 7, ["x"], {"a": 1}], ids=repr)
def test_an_id_that_is_none_is_refused(shared: Company, device: Device, name: Any) -> None:
    body = {"id": name, "title": "x", "depot_id": shared.depot}
    answer = shared.admin.post("/v1/work-orders", body)
    refused(answer, 422)
    parent = {"entity": "work_order", "id": shared.assigned()}
    result = device.do("note", name, "create", {"parent": parent, "text": "x"})
    assert result["status"] == "rejected"


@pytest.mark.parametrize("name", ["x", "x" * 64, "A_b.c:d-9", "..", "-", "0"])
def test_every_id_of_the_promised_shape_is_taken(shared: Company, device: Device, name: str) -> None:
    device_made = f"{new_id('N')}.:_-"
    parent = {"entity": "work_order", "id": shared.assigned()}
    assert device.do("note", device_made, "create", {"parent": parent, "text": "x"})["status"] == "applied"
    answer = shared.admin.post("/v1/parts", {"id": name, "number": name, "name": "x"})
    assert answer.status_code in {201, 409}


@pytest.mark.parametrize("value", [2.5, 2, "2,5", "", "NaN", "Infinity", "1e999999", "0x10", True, "1_000", " 1", "١"])
def test_a_quantity_is_a_decimal_string_and_nothing_else(shared: Company, value: Any) -> None:
    work_order = shared.work_order()
    etag = shared.admin.get(f"/v1/work-orders/{work_order}").headers["ETag"]
    refused(shared.admin.patch(f"/v1/work-orders/{work_order}", {"meter_reading": value}, If_Match=etag), 422)


def test_a_quantity_comes_back_as_a_decimal_string(shared: Company) -> None:
    changed = shared.admin.change("work-orders", shared.work_order(), meter_reading="2.500")
    assert isinstance(changed["meter_reading"], str)
    assert float(changed["meter_reading"]) == 2.5


@pytest.mark.parametrize(
    "value", ["2026-11-20T10:15:00", "2026-11-20", "yesterday", "2026-13-01T00:00:00Z", 1700000000]
)
def test_a_time_without_an_offset_is_refused(shared: Company, value: Any) -> None:
    work_order = shared.work_order()
    etag = shared.admin.get(f"/v1/work-orders/{work_order}").headers["ETag"]
    refused(shared.admin.patch(f"/v1/work-orders/{work_order}", {"due_at": value}, If_Match=etag), 422)


@pytest.mark.parametrize("value", [2**53, -(2**53), 1.5, "1", True])
def test_an_integer_stays_below_two_to_the_53(shared: Company, value: Any) -> None:
    task = {"id": new_id("TASK"), "work_order_id": shared.work_order(), "title": "x", "position": value}
    assert shared.admin.post("/v1/tasks", task).status_code in {400, 422}
    ok(shared.admin.post("/v1/tasks", task | {"position": 2**53 - 1}), 201)


def test_access_tokens_are_signed_as_promised(server: Server, nobody: Api, company: Company) -> None:
    keys = {key["kid"]: key for key in ok(nobody.get("/v1/jwks.json"))["keys"]}
    device = company.device()
    for token, role, subject in (
        (server.token("reviewer"), "reviewer", "user:"),
        (device.joined["access_token"], "technician", "device:"),
        (server.token("integration", "--system", "wms"), "integration", "system:"),
    ):
        head = jwt.get_unverified_header(token)
        assert (head["typ"], head["alg"]) == ("at+jwt", "ES256")
        key = jwt.PyJWK(keys[head["kid"]]).key
        claims = jwt.decode(token, key, algorithms=["ES256"], audience="backhaul")
        assert claims.keys() >= {"iss", "aud", "sub", "role", "iat", "jti", "exp"}
        assert claims["exp"] <= claims["iat"] + 900
        assert claims["role"] == role
        assert claims["sub"].startswith(subject)
    assert claims["system"] == "wms"
    office = jwt.decode(server.token("reviewer"), options={"verify_signature": False})
    assert office["scopes"] == ["*"]
    assert all("d" not in key for key in keys.values())


def test_a_token_that_is_not_the_servers_is_no_token(server: Server, nobody: Api) -> None:
    token = server.token("admin")
    head, payload, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    forged = {
        "none": jwt.encode(claims, None, algorithm="none", headers={"typ": "at+jwt", "kid": kid}),  # type: ignore[arg-type]
        "hmac": jwt.encode(claims, "k" * 32, algorithm="HS256", headers={"typ": "at+jwt", "kid": kid}),
        "another kid": jwt.encode(claims, "k" * 32, algorithm="HS256", headers={"typ": "at+jwt", "kid": "../x"}),
        "cut": f"{head}.{payload}.{signature[:-4]}",
        "other payload": f"{head}.{payload[:-4]}AAAA.{signature}",
        "rubbish": "a.b.c",
    }
    for name, wrong in forged.items():
        answer = nobody.send("GET", "/v1/work-orders", headers={"Authorization": f"Bearer {wrong}"})
        assert refused(answer, 401, "unauthorized"), name
    for header in (f"Basic {token}", token, "Bearer", f"Bearer {token} {token}"):
        refused(nobody.send("GET", "/v1/work-orders", headers={"Authorization": header}), 401, "unauthorized")


def test_a_client_gets_a_token_of_its_system(server: Server, nobody: Api) -> None:
    printed = server.command("client", "add", "ERP bridge", "--system", "erp")
    words = dict(line.split()[:2] for line in printed.splitlines() if line.startswith("client_"))
    asked = {"grant_type": "client_credentials", **words}
    given = ok(nobody.post("/v1/token", asked))
    assert given.keys() >= {"access_token", "expires_in"}
    claims = jwt.decode(given["access_token"], options={"verify_signature": False})
    assert (claims["role"], claims["system"]) == ("integration", "erp")
    ok(server.api(given["access_token"]).get("/v1/parts"))
    for wrong in ({"client_secret": "no"}, {"client_id": "no"}, {"client_secret": ""}, {"client_id": "\u0000"}):
        assert nobody.post("/v1/token", asked | wrong).status_code in {400, 401, 422}
    assert nobody.post("/v1/token", asked | {"client_secret": "no"}).json()["code"] == "invalid_grant"
    assert nobody.post("/v1/token", asked | {"grant_type": "password"}).status_code in {400, 422}


def test_what_lies_outside_ones_scopes_looks_like_nothing(server: Server, company: Company) -> None:
    other = Company.found(server)
    hidden = company.work_order()
    device = company.device()
    case = device.do("part_consumption", new_id("C"), "create", consumption(company.assigned(), new_id("P-NONE")))
    stranger = server.office("dispatcher", "--scope", f"depot:{other.depot}")
    reviewer = server.office("reviewer", "--scope", f"depot:{other.depot}")
    ok(server.office("reviewer").get(f"/v1/conflicts/{case['review_id']}"))

    def bytes_of(api: Api, method: str, path: str) -> tuple[int, bytes]:
        headers = {"X-Correlation-Id": "same", "If-Match": '"1"'}
        body = {"title": "x"} if method == "PATCH" else None
        answer = api.send(method, path, headers=headers, json=body)
        return answer.status_code, answer.content

    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/history")):
        there = bytes_of(stranger, method, f"/v1/work-orders/{hidden}{path}")
        nothing = bytes_of(stranger, method, f"/v1/work-orders/{new_id('WO')}{path}")
        assert there == nothing
        assert there[0] == 404
    local = server.office("reviewer", "--scope", f"depot:{company.depot}")
    assert bytes_of(local, "GET", f"/v1/conflicts/{case['review_id']}")[0] == 200
    seen = bytes_of(reviewer, "GET", f"/v1/conflicts/{case['review_id']}")
    assert seen == bytes_of(reviewer, "GET", f"/v1/conflicts/{new_id('c_')}")
    assert seen[0] == 404
    assert hidden not in [item["id"] for item in ok(stranger.get("/v1/work-orders", limit=500))["items"]]
    assert case["review_id"] not in [item["id"] for item in ok(reviewer.get("/v1/conflicts", limit=500))["items"]]


def consumption(work_order: str, part: str, **more: Any) -> Json:
    made = {"work_order_id": work_order, "part_id": part, "quantity": "1", "line_status": "used", "occurred_at": now()}
    return made | more


def test_a_reference_out_of_reach_is_treated_as_one_to_nothing(server: Server, company: Company) -> None:
    other = Company.found(server)
    device = company.device()
    hidden, none = other.assigned(), new_id("WO")

    def told(entity: str, patch: Json) -> str:
        result = device.do(entity, new_id("X"), "create", patch)
        names = [hidden, none, str(result["n"]), result.get("review_id") or "-"]
        result.pop("n"), result.pop("review_id", None), result.pop("record", None), result.pop("clock", None)
        text = json.dumps(result)
        for name in names[:2]:
            text = text.replace(name, "*")
        return text

    for entity, patch, status in (
        ("note", {"text": "x"}, "parked"),
        ("part_consumption", consumption("", company.part), "parked"),
        ("task", {"title": "x"}, "rejected"),
    ):
        answers = []
        for target in (hidden, none):
            reference = (
                {"parent": {"entity": "work_order", "id": target}} if entity == "note" else {"work_order_id": target}
            )
            answers.append(told(entity, patch | reference))
        assert answers[0] == answers[1]
        assert f'"status": "{status}"' in answers[0]


@pytest.mark.parametrize("plural", LISTS)
def test_every_list_has_the_same_shape(server: Server, shared: Company, plural: str) -> None:
    api = server.office("auditor") if plural == "audit" else shared.admin
    body = ok(api.get(f"/v1/{plural}", limit=1))
    assert body.keys() >= {"items", "next"}
    assert len(body["items"]) <= 1
    assert body["next"] is None or isinstance(body["next"], str)
    refused(api.get(f"/v1/{plural}", no_such_field="x"), 422, "unknown_filter")
    for limit in ("0", "501", "-1", "x", "1.5", "", "9" * 30):
        assert api.get(f"/v1/{plural}", limit=limit).status_code in {400, 422}, limit
    for after in ("rubbish", "AAAA", "\u0000", "x" * 5000):
        assert api.get(f"/v1/{plural}", after=after).status_code in {400, 422}, after
    for sort in ("no_such_field", "-no_such_field", "", "-", "id;drop table", "id,id"):
        assert api.get(f"/v1/{plural}", sort=sort).status_code in {400, 422}, sort
    ok(api.get(f"/v1/{plural}", limit=500))


def test_a_list_is_paged_sorted_and_filtered(company: Company) -> None:
    names = ["b", "a", "d", "c", "a"]
    made = [company.work_order(title=name, priority="low" if name == "a" else "high") for name in names]

    def every(**params: Any) -> list[Json]:
        items, after = [], None
        while True:
            page = {} if after is None else {"after": after}
            body = ok(company.admin.get("/v1/work-orders", depot_id=company.depot, limit=2, **params, **page))
            assert len(body["items"]) <= 2
            items += body["items"]
            after = body["next"]
            if after is None:
                return items

    assert [item["id"] for item in every()] == sorted(made)
    assert [item["title"] for item in every(sort="title")] == sorted(names)
    assert [item["title"] for item in every(sort="-title")] == sorted(names, reverse=True)
    assert [item["id"] for item in every(sort="-id")] == sorted(made, reverse=True)
    assert {item["id"] for item in every(priority="low")} == {made[1], made[4]}
    assert every(priority="low", title="d") == []
    assert len(every(sort="meter_reading")) == 5, "a field that all lack still sorts all"
    for item in every():
        assert item.keys() >= {"id", "version", "clock", "updated_at", "title"}
        assert is_moment(item["updated_at"])


def test_a_list_says_no_more_when_the_last_page_is_full(company: Company) -> None:
    for _ in range(2):
        company.work_order()
    body = ok(company.admin.get("/v1/work-orders", depot_id=company.depot, limit=2))
    assert len(body["items"]) == 2
    if body["next"] is not None:
        rest = ok(company.admin.get("/v1/work-orders", depot_id=company.depot, limit=2, after=body["next"]))
        assert rest == {"items": [], "next": None} | {key: rest[key] for key in rest.keys() - {"items", "next"}}


def test_a_list_takes_a_hundred_when_nobody_says(company: Company) -> None:
    device = company.device()
    parent = {"entity": "work_order", "id": company.assigned()}
    device.push(*[device.mutation("note", new_id("N"), "create", {"parent": parent, "text": "x"}) for _ in range(101)])
    body = ok(company.admin.get("/v1/notes"))
    assert len(body["items"]) == 100
    assert body["next"]


def test_a_role_that_may_not_gets_403(server: Server, shared: Company) -> None:
    device = shared.device()
    refused(device.api.post("/v1/enrolment-codes", {"technician_id": shared.technician}), 403, "forbidden")
    refused(device.api.get("/v1/conflicts"), 403, "forbidden")
    refused(server.office("dispatcher").get("/v1/audit"), 403, "forbidden")
    refused(server.office("auditor").post("/v1/work-orders", {"id": new_id("WO"), "title": "x"}), 403, "forbidden")
    refused(
        server.office("reviewer").post("/v1/enrolment-codes", {"technician_id": shared.technician}), 403, "forbidden"
    )
