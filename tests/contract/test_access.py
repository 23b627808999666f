"""Who may call what: every role at every operation; and what lies out of reach looks as if it did not exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sync.entities import ENTITY_TYPES
from tests.support.api import ROLES, Answer, Api, Caller

EVERYONE = {"technician", *ROLES}
OFFICE = {"dispatcher", "inventory_controller", "reviewer", "auditor", "admin"}
DECIDERS = {"dispatcher", "inventory_controller", "reviewer", "admin"}
OPEN = "open"

# The whole table, written by hand: a new endpoint has to say here who may call it.
TABLE: dict[tuple[str, str], set[str] | str] = {
    ("POST", "/v1/push"): {"technician"},
    ("GET", "/v1/changes"): {"technician"},
    ("POST", "/v1/sync"): {"technician"},
    ("GET", "/v1/changes/stream"): {"technician"},
    ("GET", "/v1/schema"): EVERYONE,
    ("POST", "/v1/enrolment-codes"): {"dispatcher", "admin"},
    ("POST", "/v1/devices"): OPEN,
    ("POST", "/v1/token"): OPEN,
    ("GET", "/v1/devices"): OFFICE,
    ("GET", "/v1/devices/{device_id}"): OFFICE,
    ("POST", "/v1/devices/{device_id}/revoke"): {"dispatcher", "admin"},
    ("GET", "/v1/conflicts"): {*DECIDERS, "auditor"},
    ("GET", "/v1/conflicts/{case_id}"): {*DECIDERS, "auditor"},
    ("POST", "/v1/conflicts/{case_id}/resolution"): DECIDERS,
    ("GET", "/v1/audit"): {"auditor", "admin"},
    ("GET", "/v1/openapi.json"): OPEN,
    ("GET", "/v1/jwks.json"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): OPEN,
}
PLANNERS = {"dispatcher", "integration", "admin"}
KEEPERS = {"dispatcher", "inventory_controller", "integration", "admin"}
WRITERS = {"dispatcher", "inventory_controller", "reviewer", "integration", "admin"}

# Who may create, change and delete at the office.
WRITING: dict[str, tuple[set[str], set[str], set[str]]] = {
    "work_order": (PLANNERS, WRITERS, PLANNERS),
    "technician": (PLANNERS, PLANNERS, PLANNERS),
    "location": (KEEPERS, KEEPERS, KEEPERS),
}
for _entity in ENTITY_TYPES.values():
    _office = EVERYONE - {"technician", "auditor"}
    _written = {role for field in _entity.fields.values() if not field.server for role in field.written_by}
    _create, _change, _delete = WRITING.get(
        _entity.name,
        (
            set(_entity.created_by) & _office | {"admin"},
            _written & _office | {"admin"},
            set(_entity.deleted_by) & _office | {"admin"},
        ),
    )
    TABLE |= {
        ("GET", f"/v1/{_entity.plural}"): EVERYONE,
        ("POST", f"/v1/{_entity.plural}"): _create,
        ("GET", f"/v1/{_entity.plural}/{{id}}"): EVERYONE,
        ("PATCH", f"/v1/{_entity.plural}/{{id}}"): _change,
        ("DELETE", f"/v1/{_entity.plural}/{{id}}"): _delete,
        ("GET", f"/v1/{_entity.plural}/{{id}}/history"): EVERYONE,
    }


@pytest.fixture(scope="module")
def callers(shared_api: Api) -> dict[str, Caller]:
    shared_api.clock.ahead_ms = 0
    office: dict[str, Caller] = {role: shared_api.office(role) for role in ROLES}
    return {**office, "technician": shared_api.enrol(shared_api.add_technician())}


def call(caller: Caller, method: str, path: str) -> Answer:
    for name in ("id", "device_id", "case_id"):
        path = path.replace(f"{{{name}}}", "nothing")
    return caller.call(method, path, {} if method in ("POST", "PATCH") else None)


def cells() -> Iterator[tuple[str, str, str]]:
    for (method, path), allowed in TABLE.items():
        if allowed is not OPEN:
            for role in sorted(EVERYONE):
                yield method, path, role


def test_the_table_names_every_operation(api: Api) -> None:
    document: dict[str, Any] = api.nobody().get("/v1/openapi.json").json
    named = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"
    }

    assert named == set(TABLE)


def test_every_role_may_call_exactly_what_the_table_says(callers: dict[str, Caller]) -> None:
    wrong = []
    for method, path, role in cells():
        if path == "/v1/changes/stream" and role in TABLE[method, path]:
            continue  # it would stay open; see the tests of the stream
        got = call(callers[role], method, path)
        assert got.status_code < 500, f"{method} {path} as {role}: {got.text}"
        if (got.status_code != 403) != (role in TABLE[method, path]):
            wrong.append((method, path, role, got.status_code))

    assert wrong == []


@pytest.mark.parametrize("token", [None, "x", "a.b.c", "Bearer"])
def test_without_a_good_token_nothing_but_the_open_calls_answers(api: Api, token: str | None) -> None:
    caller = Caller(api, token)

    for (method, path), allowed in TABLE.items():
        got = call(caller, method, path)
        assert (got.status_code == 401) is (allowed is not OPEN), f"{method} {path}: {got.status_code}"


# -- out of reach -------------------------------------------------------------------------------------------------

SAME = {"X-Correlation-Id": "same-id"}


def same(one: Answer, other: Answer) -> bool:
    return (one.status_code, one.data, dict(one.headers)) == (other.status_code, other.data, dict(other.headers))


@pytest.fixture
def foreign(api: Api) -> str:
    """A job of another technician and another depot."""
    depot = api.add_depot()
    return api.add_work_order(api.add_technician(depot), depot)


@pytest.fixture
def limited(api: Api) -> Caller:
    return api.office("dispatcher", [f"depot:{api.add_depot()}"])


@pytest.mark.parametrize("tail", ["", "/history"])
def test_a_foreign_record_looks_to_a_device_as_if_it_did_not_exist(api: Api, foreign: str, tail: str) -> None:
    device = api.enrol(api.add_technician())

    got = device.get(f"/v1/work-orders/{foreign}{tail}", SAME)

    assert got.status_code == 404
    assert same(got, device.get(f"/v1/work-orders/none{tail}", SAME))


@pytest.mark.parametrize(("method", "body"), [("PATCH", {"title": "x"}), ("DELETE", None)])
def test_a_foreign_record_cannot_be_written_nor_told_from_none(
    api: Api, limited: Caller, foreign: str, method: str, body: Any
) -> None:
    headers = {**SAME, "If-Match": '"1"'}

    got = limited.call(method, f"/v1/work-orders/{foreign}", body, headers)
    none = limited.call(method, "/v1/work-orders/none", body, headers)

    assert got.status_code == 404
    assert same(got, none)
    assert api.office().get(f"/v1/work-orders/{foreign}").json["version"] == 1


def test_creating_cannot_reach_into_a_record_out_of_reach(api: Api, foreign: str) -> None:
    depot = api.add_depot()
    limited = api.office("dispatcher", [f"depot:{depot}"])
    before = api.office().get(f"/v1/work-orders/{foreign}").json

    own = limited.post("/v1/work-orders", {"id": api.new("WO"), "title": "x", "depot_id": depot})
    taken = limited.post("/v1/work-orders", {"id": foreign, "title": "x", "depot_id": depot})

    assert own.status_code == 201
    assert taken.status_code == 422
    assert before["title"] not in taken.text
    assert api.office().get(f"/v1/work-orders/{foreign}").json == before


def test_an_office_writer_cannot_make_what_it_could_not_see(limited: Caller, api: Api) -> None:
    got = limited.post("/v1/work-orders", {"id": api.new("WO"), "title": "x"})

    assert got.status_code == 403


def test_lists_leave_out_what_is_out_of_reach(api: Api, limited: Caller, foreign: str) -> None:
    assert limited.get(f"/v1/work-orders?id={foreign}").json["items"] == []
    assert len(api.office().get(f"/v1/work-orders?id={foreign}").json["items"]) == 1


def test_a_foreign_device_looks_as_if_it_did_not_exist(api: Api, limited: Caller) -> None:
    device = api.enrol(api.add_technician(api.add_depot())).enrolment["device_id"]

    got = limited.get(f"/v1/devices/{device}", SAME)
    revoked = limited.post(f"/v1/devices/{device}/revoke", {"reason": "lost"}, SAME)

    assert same(got, limited.get("/v1/devices/none", SAME))
    assert same(revoked, limited.post("/v1/devices/none/revoke", {"reason": "lost"}, SAME))
    assert api.office().get(f"/v1/devices/{device}").json["revoked"] is None


def test_a_code_for_a_technician_out_of_reach_is_one_for_nobody(api: Api, limited: Caller) -> None:
    technician = api.add_technician(api.add_depot())

    got = limited.post("/v1/enrolment-codes", {"technician_id": technician}, SAME)

    assert got.json["code"] == "unknown_technician"
    assert same(got, limited.post("/v1/enrolment-codes", {"technician_id": "nobody"}, SAME))


def test_a_foreign_case_looks_as_if_it_did_not_exist(api: Api, limited: Caller) -> None:
    depot = api.add_depot()
    technician = api.add_technician(depot)
    order = api.add_work_order(technician, depot)
    for text in ("one", "two"):
        api.enrol(technician).push(
            {"entity": "work_order", "id": order, "patch": {"resolution": text}, "base": {"hub": 1}}
        )
    (case,) = [c for c in api.office().get("/v1/conflicts?limit=500").json["items"] if c["record_id"] == order]
    decided = {"option": "current", "reason": "x"}

    got = limited.get(f"/v1/conflicts/{case['id']}", SAME)
    resolved = limited.post(f"/v1/conflicts/{case['id']}/resolution", decided, {**SAME, "If-Match": "*"})

    assert same(got, limited.get("/v1/conflicts/none", SAME))
    assert same(resolved, limited.post("/v1/conflicts/none/resolution", decided, {**SAME, "If-Match": "*"}))
    assert case["id"] not in [c["id"] for c in limited.get("/v1/conflicts?limit=500").json["items"]]


@pytest.mark.parametrize("entity", ["work_order", "note"])
def test_a_reference_out_of_reach_is_one_to_nothing(api: Api, foreign: str, entity: str) -> None:
    device = api.enrol(api.add_technician())

    def pushed(target: str) -> Any:
        patch = (
            {"title": "x"}
            if entity == "work_order"
            else {"parent": {"entity": "work_order", "id": target}, "text": "x"}
        )
        mutation = {"entity": entity, "id": target if entity == "work_order" else api.new("N"), "patch": patch}
        (result,) = device.push({**mutation, "op": "update" if entity == "work_order" else "create"}).json["results"]
        return {name: part for name, part in result.items() if name not in ("n", "review_id")}

    assert str(pushed(foreign)).replace(foreign, "?") == str(pushed("none-such")).replace("none-such", "?")
