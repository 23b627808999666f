"""What operators and auditors ask."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import jwt
import pytest

from server.app import create_app
from server.settings import Settings
from tests.support.api import Api, open_api


def test_a_server_that_is_migrated_is_ready(api: Api) -> None:
    got = api.nobody().get("/readyz")

    assert (got.status_code, got.json) == (200, {"database": "ok", "migrations": "ok", "redis": "unset"})
    assert api.nobody().get("/healthz").status_code == 200


def test_a_server_whose_database_is_not_migrated_is_not_ready(make_database: Callable[[], str], tmp_path: Path) -> None:
    with open_api(make_database(), tmp_path) as api:
        got = api.nobody().get("/readyz")

    assert (got.status_code, got.json["database"], got.json["migrations"]) == (503, "ok", "pending")


def test_a_server_without_its_database_is_alive_and_not_ready(tmp_path: Path) -> None:
    with open_api("postgresql+psycopg://nobody@127.0.0.1:1/none", tmp_path) as api:
        ready, alive = api.nobody().get("/readyz"), api.nobody().get("/healthz")
        figures = api.nobody().get("/metrics").text
        other = api.office().get("/v1/parts")

    assert (ready.status_code, ready.json["database"]) == (503, "down")
    assert alive.status_code == 200
    assert "backhaul_database_up 0.0" in figures
    assert (other.status_code, other.json["code"], "Retry-After" in other.headers) == (503, "unavailable", True)


@pytest.mark.parametrize(("url", "said"), [("redis://127.0.0.1:1/0", "down"), ("unix:///nowhere.sock", "down")])
def test_redis_is_told_of_and_never_makes_the_server_unready(
    own_api: Callable[..., AbstractContextManager[Api]], url: str, said: str
) -> None:
    with own_api(redis_url=url) as api:
        got = api.nobody().get("/readyz")

    assert (got.status_code, got.json["redis"]) == (200, said)


def test_an_app_without_a_database_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="database URL"):
        create_app(Settings(data_dir=tmp_path))


def test_the_metrics_count_requests_and_what_became_of_mutations(
    own_api: Callable[..., AbstractContextManager[Api]],
) -> None:
    with own_api() as api:
        device = api.enrol(api.add_technician())
        order = api.add_work_order(device.technician)
        device.push({"entity": "work_order", "id": order, "patch": {"resolution": "x"}, "base": {"hub": 1}})
        api.office().get("/v1/work-orders/nothing")
        api.nobody().get("/nowhere/at/all")

        text = api.nobody().get("/metrics").text

    assert 'backhaul_mutations_total{outcome="applied"} 1.0' in text
    assert "backhaul_push_seconds_count 1.0" in text
    route = 'endpoint="/v1/work-orders/<string:id>",method="GET",status="404"'
    assert f"backhaul_requests_total{{{route}}} 1.0" in text
    assert "nowhere" not in text
    assert re.search(r"^backhaul_feed_head [1-9]", text, re.MULTILINE)
    assert "backhaul_open_cases " in text


def test_the_key_set_verifies_our_tokens(api: Api) -> None:
    keys = api.nobody().get("/v1/jwks.json").json
    token = api.token("auditor")

    (key,) = [k for k in jwt.PyJWKSet.from_dict(keys).keys if k.key_id == jwt.get_unverified_header(token)["kid"]]

    assert jwt.decode(token, key.key, algorithms=["ES256"], audience="backhaul")["role"] == "auditor"
    assert not any("d" in one for one in keys["keys"])


def test_the_audit_is_read_page_by_page_newest_first(api: Api) -> None:
    api.add_work_order(None)
    auditor = api.office("auditor")

    first = auditor.get("/v1/audit?limit=2").json
    second = auditor.get(f"/v1/audit?limit=2&after={first['next']}").json

    ids = [entry["id"] for entry in first["items"] + second["items"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 4
    assert auditor.get("/v1/audit?colour=red").json["code"] == "unknown_filter"


def test_each_request_is_one_line_of_ids_and_never_of_content(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    device = api.enrol(api.add_technician())
    order = api.add_work_order(device.technician)
    canary = "Canary-7319"

    with caplog.at_level(logging.INFO, "backhaul.request"):
        device.push({"entity": "work_order", "id": order, "patch": {"resolution": canary}, "base": {"hub": 1}})
        api.office().get(f"/v1/work-orders?title={canary}")
        api.office().get(f"/v1/work-orders/{order}", {"X-Correlation-Id": "trace-me"})
        api.office().get(f"/{canary}")

    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "backhaul.request"]
    assert [line["route"] for line in lines] == [
        "/v1/push", "/v1/work-orders", "/v1/work-orders/<string:id>", None,
    ]  # fmt: skip
    assert (lines[0]["applied"], lines[0]["replica"]) == (1, device.replica)
    assert (lines[2]["id"], lines[2]["correlation_id"], lines[2]["status"]) == (order, "trace-me", 200)
    assert lines[2]["caller"] == "user:admin"
    assert canary not in caplog.text


def test_every_answer_has_a_correlation_id_and_is_not_cached(api: Api) -> None:
    for path in ("/healthz", "/v1/parts", "/v1/openapi.json", "/nowhere", "/metrics"):
        got = api.office().get(path)
        assert got.headers["X-Correlation-Id"], path
        assert got.headers["X-Content-Type-Options"] == "nosniff", path
        assert got.headers["Cache-Control"] == "no-store", path
