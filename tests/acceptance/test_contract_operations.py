"""Section 11, and the document that tells of it all."""

from __future__ import annotations

import re

import pytest

from tests.acceptance.client import Api, Company, Server, is_moment, new_id, ok, refused


def test_health_and_readiness_need_no_token(nobody: Api) -> None:
    ok(nobody.get("/healthz"))
    ready = ok(nobody.get("/readyz"))
    assert ready.keys() >= {"database", "migrations", "redis"}
    assert (ready["database"], ready["migrations"]) == ("ok", "ok")
    assert ready["redis"] in {"ok", "down", "unset"}


def test_metrics_are_what_prometheus_reads(nobody: Api) -> None:
    answer = nobody.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(("text/plain", "application/openmetrics-text"))
    lines = answer.text.splitlines()
    assert any(line.startswith("# TYPE ") for line in lines)
    sample = re.compile(r"[a-z_][a-z0-9_]*(\{.*\})? [-+0-9.eInfNa]+")
    assert [line for line in lines if line and line[0] != "#" and not sample.fullmatch(line)] == []


def test_the_audit_tells_who_did_what(server: Server, company: Company) -> None:
    device = company.device()
    ok(company.admin.post(f"/v1/devices/{device.id}/revoke", {"reason": "retired"}))
    auditor = server.office("auditor")
    entries = ok(auditor.get("/v1/audit", limit=500))["items"]
    about = [entry for entry in entries if device.id in str(entry)]
    assert about
    assert any("admin-1" in str(entry) for entry in about)
    assert all(any(is_moment(value) for value in entry.values()) for entry in about)
    assert device.joined["refresh_token"] not in str(entries)
    for role in ("dispatcher", "reviewer", "inventory_controller"):
        refused(server.office(role).get("/v1/audit"), 403, "forbidden")


def test_the_document_tells_of_every_call_that_was_made(server: Server, company: Company) -> None:
    device = company.device()
    device.pull()
    device.send()
    ok(device.api.post("/v1/sync", {"push": None, "cursor": None}))
    company.admin.change("work-orders", company.work_order(), title="x")
    company.admin.history("work-orders", company.work_order())
    for path in ("/healthz", "/readyz", "/metrics", "/v1/jwks.json", "/v1/schema", "/v1/devices", "/v1/conflicts"):
        assert company.admin.get(path).status_code == 200
    document = ok(company.admin.get("/v1/openapi.json"))
    assert document["openapi"].startswith("3.")
    told = [
        (method.upper(), re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)))
        for path, methods in document["paths"].items()
        for method in methods
        if method in {"get", "post", "patch", "delete", "put", "head"}
    ]
    untold = {
        (method, path)
        for method, path in Api.used
        if not any(method == known and pattern.fullmatch(path) for known, pattern in told)
    }
    assert untold == set()


@pytest.mark.parametrize(
    "call",
    [
        "POST /v1/enrolment-codes",
        "POST /v1/devices",
        "POST /v1/token",
        "GET /v1/devices",
        "GET /v1/devices/{}",
        "POST /v1/devices/{}/revoke",
        "POST /v1/push",
        "GET /v1/changes",
        "POST /v1/sync",
        "GET /v1/changes/stream",
        "GET /v1/schema",
        "GET /v1/work-orders",
        "POST /v1/work-orders",
        "GET /v1/work-orders/{}",
        "PATCH /v1/work-orders/{}",
        "DELETE /v1/work-orders/{}",
        "GET /v1/work-orders/{}/history",
        "GET /v1/conflicts",
        "GET /v1/conflicts/{}",
        "POST /v1/conflicts/{}/resolution",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /v1/audit",
        "GET /v1/jwks.json",
        "GET /v1/openapi.json",
    ],
)
def test_the_document_names_what_the_contract_names(nobody: Api, call: str) -> None:
    method, path = call.split()
    paths = ok(nobody.get("/v1/openapi.json"))["paths"]
    plain = {re.sub(r"\{[^}]+\}", "{}", known): methods for known, methods in paths.items()}
    assert method.lower() in plain[path]


def test_every_answer_says_what_it_is(nobody: Api) -> None:
    for path in ("/healthz", "/readyz", "/v1/openapi.json", "/v1/jwks.json"):
        assert nobody.get(path).headers["Content-Type"].split(";")[0] == "application/json"
    assert nobody.get(f"/v1/{new_id('x')}").headers["Content-Type"] == "application/problem+json"
