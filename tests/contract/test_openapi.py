"""The OpenAPI document tells the truth: every route is in it, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_spec_validator import validate

from server.web.auth import undeclared_endpoints
from server.web.problems import MEDIA_TYPE
from sync.entities import ENTITY_TYPES
from tests.support.api import Api

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.nobody().get("/v1/openapi.json").json
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def test_every_route_is_in_the_document_and_nothing_else(api: Api, document: dict[str, Any]) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in api.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert set(operations(document)) == routes


def test_every_endpoint_says_who_may_call_it(api: Api) -> None:
    assert undeclared_endpoints(api.app) == []


def test_the_document_says_which_calls_need_no_token(api: Api, document: dict[str, Any]) -> None:
    open_calls = {path for (_, path), operation in operations(document).items() if operation.get("security") == []}

    assert open_calls == {
        "/healthz", "/readyz", "/metrics", "/v1/jwks.json", "/v1/openapi.json", "/v1/devices", "/v1/token",
    }  # fmt: skip
    assert "security" not in document["paths"]["/v1/devices"]["get"]
    assert document["security"] == [{"bearer": []}]


def test_no_route_ends_in_a_slash_and_one_too_many_is_forgiven(api: Api) -> None:
    assert not [rule.rule for rule in api.app.url_map.iter_rules() if rule.rule.endswith("/")]
    assert api.office().get("/v1/work-orders/").status_code == 200


def test_every_error_response_is_a_problem_document(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        for status, response in operation["responses"].items():
            resolved = resolve(document, response)
            if status[0] in "45d" and path != "/readyz":
                assert list(resolved["content"]) == [MEDIA_TYPE], f"{method} {path} {status}"


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                resolve(document, node)
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(document)


@pytest.mark.parametrize("name", sorted(ENTITY_TYPES))
def test_every_entity_is_described_with_each_of_its_fields(document: dict[str, Any], name: str) -> None:
    entity = ENTITY_TYPES[name]
    get = document["paths"][f"/v1/{entity.plural}/{{id}}"]["get"]
    shape = resolve(document, get["responses"]["200"]["content"]["application/json"]["schema"])

    assert set(shape["properties"]) == {"id", "version", "clock", "updated_at", *entity.fields}
    for field in entity.fields.values():
        if field.choices:
            assert set(field.choices) <= set(shape["properties"][field.name]["enum"])


@pytest.mark.parametrize("name", sorted(ENTITY_TYPES))
def test_a_record_answer_has_no_members_but_those_described(api: Api, document: dict[str, Any], name: str) -> None:
    plural = ENTITY_TYPES[name].plural
    properties = document["components"]["schemas"]["".join(p.capitalize() for p in name.split("_"))]["properties"]

    for item in api.office().get(f"/v1/{plural}?limit=50").json["items"]:
        assert set(item) <= set(properties)


def test_status_codes_are_those_documented(api: Api, document: dict[str, Any]) -> None:
    order = api.add_work_order(None)
    post = document["paths"]["/v1/work-orders"]["post"]["responses"]
    one = document["paths"]["/v1/work-orders/{id}"]

    assert {"201", "409", "422"} <= set(post)
    assert {"200", "404", "412", "428"} <= set(one["patch"]["responses"])
    assert str(api.office().delete(f"/v1/work-orders/{order}", 1).status_code) in one["delete"]["responses"]


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)  # raises, naming the place


def test_null_is_allowed_just_where_it_clears_a_field(document: dict[str, Any]) -> None:
    patch = document["components"]["schemas"]["WorkOrderPatch"]["properties"]

    assert patch["resolution"]["type"] == ["string", "null"]
    assert patch["title"]["type"] == "string"


def test_a_problem_may_bring_more_members_than_the_document_names(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert schemas["Problem"]["additionalProperties"] is True
    assert schemas["Place"]["properties"].keys() == {"path", "code", "detail"}
