"""Whatever goes wrong is answered as an RFC 9457 problem with a stable code; and lists asked for wrongly say where."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import Any

import marshmallow as ma
import pytest
from flask import Flask, Response, abort, redirect
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from server.web.body import Blueprint, Envelope, answer
from server.web.correlation import install_correlation
from server.web.paging import ListQuery, next_after, read_list_query
from server.web.problems import MAX_ERRORS, MEDIA_TYPE, ProblemApi, install_problems, places, with_problem_media_types
from sync.errors import (
    DeviceRevoked,
    InvalidCursor,
    InvariantBroken,
    MutationGap,
    NotFound,
    SyncError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownFilter,
    Unprocessable,
)


class DriverDown(Exception):
    """Stands for the database driver's own error."""


class Part(Envelope):
    quantity = ma.fields.Integer(required=True)


class Order(Envelope):
    number = ma.fields.String(required=True)
    parts = ma.fields.List(ma.fields.Nested(Part))


RAISED: dict[str, Exception] = {
    "gap": MutationGap(expected=7, code="spoofed", weight=Decimal("2.50")),
    "missing": NotFound(),
    "busy": TooManyRequests(retry_after_s=9),
    "down": Unavailable("The ERP does not answer.", retry_after_s=30),
    "stranger": Unauthorized(),
    "revoked": DeviceRevoked(reason="lost"),
    "broken": InvariantBroken("stock row 7 of customer Miller is negative", row=7),
    "driver": DriverDown("password=hunter2"),
    "bug": ZeroDivisionError("secret"),
    "base": SyncError("secret"),
}


@pytest.fixture
def app() -> Flask:
    app = Flask("test", static_folder=None)
    app.config.update(API_TITLE="t", API_VERSION="1", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/v1", TESTING=True)
    api = ProblemApi(app)
    install_correlation(app)
    install_problems(app, api, unavailable=(DriverDown,))
    blueprint = Blueprint("things", __name__, url_prefix="/v1")

    @blueprint.route("/raise/<name>")
    def raise_(name: str) -> Response:
        raise RAISED[name]

    @blueprint.route("/abort/<int:status>")
    def abort_(status: int) -> Response:
        abort(status)

    @blueprint.route("/moved")
    def moved() -> Any:
        return redirect("/v1/orders", 307)

    @blueprint.route("/orders", methods=["POST"])
    @blueprint.json_body(Order)
    @blueprint.response(201, Order)
    @blueprint.alt_response(404, schema=Order)
    def create(order: dict[str, Any]) -> Response:
        if order["number"] == "odd":
            raise ma.ValidationError({"number": ["must be even"]})
        return answer(order, 201)

    api.register_blueprint(blueprint)
    return app


def shown(got: TestResponse) -> dict[str, Any]:
    assert got.mimetype == MEDIA_TYPE
    problem: dict[str, Any] = got.get_json(force=True)
    assert {"type", "title", "status", "detail", "code", "retryable", "correlation_id"} <= problem.keys()
    assert problem["status"] == got.status_code
    assert problem["correlation_id"] == got.headers["X-Correlation-Id"]
    return problem


@pytest.mark.parametrize(
    ("name", "status", "code", "retryable", "retry_after"),
    [
        ("gap", 409, "mutation_gap", False, None),
        ("missing", 404, "not_found", False, None),
        ("busy", 429, "too_many_requests", True, "9"),
        ("down", 503, "unavailable", True, "30"),
        ("stranger", 401, "unauthorized", False, None),
        ("revoked", 401, "device_revoked", False, None),
        ("broken", 500, "invariant_broken", False, None),
        ("driver", 503, "unavailable", True, "2"),
        ("bug", 500, "internal", False, None),
        ("base", 500, "sync_error", False, None),
    ],
)
def test_an_error_is_answered_with_its_status_and_code(
    app: Flask, name: str, status: int, code: str, retryable: bool, retry_after: str | None
) -> None:
    got = app.test_client().get(f"/v1/raise/{name}")

    problem = shown(got)
    assert (got.status_code, problem["code"], problem["retryable"]) == (status, code, retryable)
    assert got.headers.get("Retry-After") == retry_after
    assert ("WWW-Authenticate" in got.headers) is (status == 401)


def test_what_an_error_adds_is_shown_but_replaces_no_standard_member(app: Flask) -> None:
    problem = shown(app.test_client().get("/v1/raise/gap"))

    assert problem["type"] == "urn:backhaul:problem:mutation_gap"
    assert problem["title"] == "Mutation gap"
    assert problem["expected"] == 7
    assert problem["weight"] == "2.50"


@pytest.mark.parametrize(
    ("name", "hidden"), [("bug", "secret"), ("base", "secret"), ("broken", "Miller"), ("driver", "hunter2")]
)
def test_a_mistake_of_ours_is_in_the_log_and_not_in_the_answer(
    app: Flask, caplog: pytest.LogCaptureFixture, name: str, hidden: str
) -> None:
    with caplog.at_level(logging.WARNING, "server.web.problems"):
        got = app.test_client().get(f"/v1/raise/{name}", headers={"X-Correlation-Id": "c-1"})

    assert hidden not in got.text
    assert "row" not in shown(got)
    assert "c-1" in caplog.text
    assert "Traceback" in caplog.text
    assert hidden in caplog.text


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "malformed"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (406, "not_acceptable"),
        (413, "too_large"),
        (415, "unsupported_media_type"),
        (418, "im_a_teapot"),
        (422, "invalid"),
        (429, "too_many_requests"),
        (431, "request_header_fields_too_large"),
        (500, "internal"),
        (503, "unavailable"),
    ],
)
def test_what_the_framework_raises_is_told_in_the_same_words(app: Flask, status: int, code: str) -> None:
    got = app.test_client().get(f"/v1/abort/{status}")

    assert shown(got)["code"] == code
    assert got.status_code == status
    assert "Retry-After" not in got.headers


def test_a_route_that_does_not_exist_looks_like_a_record_that_does_not_exist(app: Flask) -> None:
    client, named = app.test_client(), {"X-Correlation-Id": "same"}

    assert client.get("/v1/nothing", headers=named).data == client.get("/v1/raise/missing", headers=named).data


def test_a_method_that_is_not_allowed_names_those_that_are(app: Flask) -> None:
    got = app.test_client().put("/v1/orders")

    assert shown(got)["code"] == "method_not_allowed"
    assert set(got.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


def test_a_head_request_gets_the_status_and_no_body(app: Flask) -> None:
    got = app.test_client().head("/v1/raise/missing")

    assert (got.status_code, got.data, got.mimetype) == (404, b"", MEDIA_TYPE)


def test_a_redirect_is_no_problem(app: Flask) -> None:
    assert app.test_client().get("/v1/moved").status_code == 307


def test_a_body_of_the_wrong_shape_says_where(app: Flask) -> None:
    problem = shown(app.test_client().post("/v1/orders", json={"parts": [{"quantity": 1}, {"quantity": "x"}, {}]}))

    assert (problem["status"], problem["code"]) == (422, "invalid")
    assert {place["path"] for place in problem["errors"]} == {"number", "parts.1.quantity", "parts.2.quantity"}


def test_a_body_that_is_no_object_has_an_error_of_the_whole(app: Flask) -> None:
    problem = shown(app.test_client().post("/v1/orders", json=[1]))

    assert [place["path"] for place in problem["errors"]] == [""]


def test_a_view_may_refuse_by_marshmallows_own_error(app: Flask) -> None:
    problem = shown(app.test_client().post("/v1/orders", json={"number": "odd"}))

    assert (problem["status"], problem["errors"]) == (422, [{"path": "number", "detail": "must be even"}])


def test_a_body_that_is_not_json_is_malformed(app: Flask) -> None:
    problem = shown(app.test_client().post("/v1/orders", data=rb'{"\ud800":1,"\ud800":2}'))

    assert (problem["status"], problem["code"]) == (400, "malformed")


def test_half_a_million_errors_are_not_all_told() -> None:
    assert len(places({"json": {n: ["wrong"] for n in range(500_000)}})) == MAX_ERRORS


# -- the OpenAPI document -----------------------------------------------------------------------------------------


def test_the_document_says_that_errors_are_problems_and_answers_are_json(app: Flask) -> None:
    document = app.test_client().get("/v1/openapi.json").get_json()

    responses = document["paths"]["/v1/orders"]["post"]["responses"]
    shared = document["components"]["responses"]
    assert list(responses["201"]["content"]) == ["application/json"]
    assert list(responses["404"]["content"]) == [MEDIA_TYPE]
    assert list(shared["DEFAULT_ERROR"]["content"]) == [MEDIA_TYPE]
    assert list(
        shared["UNPROCESSABLE_CONTENT" if "UNPROCESSABLE_CONTENT" in shared else "UNPROCESSABLE_ENTITY"]["content"]
    ) == [MEDIA_TYPE]
    assert "correlation_id" in document["components"]["schemas"]["Problem"]["properties"]


def test_rewriting_the_document_leaves_the_original_and_can_be_done_twice() -> None:
    original = {
        "paths": {"/": {"parameters": [], "get": {"responses": {"4XX": {"content": {"application/json": {}}}}}}}
    }

    once = with_problem_media_types(original)

    assert "application/json" in original["paths"]["/"]["get"]["responses"]["4XX"]["content"]  # type: ignore[index]
    assert with_problem_media_types(once) == once


# -- correlation ids and headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("offered", ["a", "trace-1:2.3_4", "x" * 64])
def test_a_clients_own_correlation_id_is_taken(app: Flask, offered: str) -> None:
    got = app.test_client().get("/v1/nothing", headers={"X-Correlation-Id": offered})

    assert got.headers["X-Correlation-Id"] == offered


@pytest.mark.parametrize("offered", ["", "x" * 65, "a b", "a/b", "é", "<script>", "a,b"])
def test_any_other_correlation_id_is_replaced(app: Flask, offered: str) -> None:
    got = app.test_client().get("/v1/nothing", headers={"X-Correlation-Id": offered})

    assert re.fullmatch(r"[0-9a-f]{32}", got.headers["X-Correlation-Id"])


@pytest.mark.parametrize("path", ["/v1/openapi.json", "/v1/nothing", "/v1/raise/bug", "/v1/moved"])
def test_every_answer_carries_the_security_headers(app: Flask, path: str) -> None:
    plain, secure = app.test_client().get(path), app.test_client().get(path, base_url="https://localhost")

    assert plain.headers["X-Content-Type-Options"] == "nosniff"
    assert plain.headers["X-Frame-Options"] == "DENY"
    assert plain.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in plain.headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in plain.headers
    assert "Strict-Transport-Security" in secure.headers


# -- list queries -------------------------------------------------------------------------------------------------

SECRET = b"s" * 32


def listed(secret: bytes = SECRET, **args: str) -> ListQuery:
    return read_list_query(
        MultiDict(args), secret=secret, sortable=("id", "priority"), filterable=("status",), beside=("wait",)
    )


def test_a_list_query_without_parameters_is_the_first_hundred_by_id() -> None:
    assert listed() == ListQuery(limit=100, after=None, sort="id", descending=False, filters={})


def test_limit_sort_and_filters_are_read() -> None:
    assert listed(limit="500", sort="-priority", status="open", wait="5") == ListQuery(
        500, None, "priority", True, {"status": "open"}
    )


@pytest.mark.parametrize(("value", "last_id"), [("high", "WO-1"), (3, "é"), (None, "x"), (1.5, "y"), (True, "z")])
def test_after_names_the_last_row_of_the_page_before(value: Any, last_id: str) -> None:
    after = next_after(listed(sort="-priority"), value, last_id, secret=SECRET)

    assert listed(sort="-priority", after=after).after == (value, last_id)


@pytest.mark.parametrize("after", ["", "x", "AAAA", "a" * 5_000, "é", "../..", "e30", "\x7f", "=", "A" * 64])
def test_an_after_that_is_garbage_is_an_invalid_cursor(after: str) -> None:
    with pytest.raises(InvalidCursor):
        listed(after=after)


def test_an_after_of_another_sort_or_another_server_or_changed_is_an_invalid_cursor() -> None:
    after = next_after(listed(sort="priority"), 1, "WO-1", secret=SECRET)

    for wrong in (
        {"after": after},
        {"after": after, "sort": "-priority"},
        {"after": "B" + after[1:], "sort": "priority"},
    ):
        with pytest.raises(InvalidCursor):
            listed(**wrong)
    with pytest.raises(InvalidCursor):
        listed(secret=b"t" * 32, after=after, sort="priority")


def test_an_unknown_filter_is_named() -> None:
    with pytest.raises(UnknownFilter) as caught:
        listed(color="red")

    assert [place["path"] for place in caught.value.extras["errors"]] == ["color"]


@pytest.mark.parametrize(
    "args",
    [{"limit": text} for text in ("0", "501", "-1", "", "1.0", "1e2", " 5", "5 ", "٣", "99999", "x")]
    + [{"sort": text} for text in ("", "-", "color", "--id", "+id", "id,priority")]
    + [{"status": "\x00"}],
)
def test_a_wrong_limit_or_sort_or_text_is_named(args: dict[str, str]) -> None:
    with pytest.raises(Unprocessable) as caught:
        listed(**args)

    assert [place["path"] for place in caught.value.extras["errors"]] == list(args)


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(Unprocessable):
        read_list_query(MultiDict([("limit", "1"), ("limit", "2")]), secret=SECRET)
