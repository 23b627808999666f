"""Sections 7 and 12: the declarations, as data."""

from __future__ import annotations

import pytest

from tests.acceptance.client import Api, Company, Json, Server, ok, refused

TYPES = {"text", "integer", "decimal", "boolean", "moment", "date", "choice", "reference", "set", "log", "object"}
ON_DELETE = {"delete_wins", "edit_resurrects", "review"}
FACTS = {"part_consumption", "discrepancy", "note"}

FIELDS = {
    "technician": "name depot_id level van_id active",
    "location": "name kind parent_id depot_id assigned_to",
    "part": "number name class uom tracking criticality identifiers status",
    "work_order": "number title description customer_id site_id depot_id priority status assignee_id scheduled_start "
    "scheduled_end actual_start actual_end resolution meter_reading tags is_test",
    "task": "work_order_id title status answers",
    "note": "parent text author_id written_at",
    "toolkit_item": "location_id part_id lot serial ownership condition on_hand reserved available minimum maximum "
    "last_counted_at",
    "part_consumption": "work_order_id task_id part_id serial lot quantity uom location_id line_status occurred_at",
    "discrepancy": "location_id part_id serial counted expected reason status counted_at counted_by",
    "rma": "number type part_id serial quantity work_order_id from_location_id reason status diagnosis_as_found "
    "diagnosis_as_confirmed core_charge",
}

CHOICES = {
    ("location", "kind"): "warehouse bin van toolbox customer_site supplier repair_vendor in_transit scrap adjustment",
    ("part", "tracking"): "none lot serial",
    ("part", "criticality"): "A B C",
    ("work_order", "priority"): "low normal high emergency",
    ("part_consumption", "line_status"): "estimated allocated picked used not_used returned removed",
}


@pytest.fixture(scope="module")
def schema(server: Server) -> Json:
    found: Json = ok(server.office("admin").get("/v1/schema"))
    return found


def test_the_schema_is_sent_once(admin: Api, company: Company) -> None:
    first = admin.get("/v1/schema")
    etag = first.headers["ETag"]
    assert etag.strip('W/"')
    again = admin.send("GET", "/v1/schema", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == etag
    listed = admin.send("GET", "/v1/schema", headers={"If-None-Match": f'"other", {etag}'})
    assert listed.status_code == 304
    assert ok(admin.send("GET", "/v1/schema", headers={"If-None-Match": '"other"'})) == first.json()
    assert ok(company.device().api.get("/v1/schema")) == first.json()


def test_every_declaration_has_its_shape(schema: Json) -> None:
    assert schema["schema"] == 1
    for entity, declared in schema["entities"].items():
        assert declared.keys() >= {"plural", "fact", "on_delete", "scopes", "fields"}, entity
        assert declared["on_delete"] in ON_DELETE
        assert declared["fact"] is (entity in FACTS)
        assert all(":" in scope for scope in declared["scopes"])
        for name, field in declared["fields"].items():
            assert field["type"] in TYPES, name
            assert field.keys() >= {"type", "required", "policy", "owner", "fact", "written_by", "doc"}, (entity, name)
            assert field["written_by"], name
            assert field["doc"], name
            assert ("target" in field) is (field["type"] == "reference"), name
            assert field["type"] != "choice" or field["choices"], name
            assert (field["policy"] == "owner_wins") is (field["owner"] is not None), name


def test_every_state_machine_has_its_shape(schema: Json) -> None:
    machines = {entity: declared["states"] for entity, declared in schema["entities"].items() if declared.get("states")}
    assert machines.keys() >= {"work_order", "task", "rma", "discrepancy"}
    for entity, states in machines.items():
        choices = set(schema["entities"][entity]["fields"][states["field"]]["choices"])
        for move in states["transitions"]:
            assert move.keys() >= {"from", "to", "by", "fact"}
            assert {move["from"], move["to"]} <= choices
            assert move["by"]
            assert isinstance(move["fact"], bool)


def test_the_fixed_names_are_there(schema: Json) -> None:
    for entity, names in FIELDS.items():
        missing = set(names.split()) - schema["entities"][entity]["fields"].keys()
        assert missing == set(), entity
    for (entity, name), choices in CHOICES.items():
        assert set(schema["entities"][entity]["fields"][name]["choices"]) == set(choices.split())


def test_every_entity_has_its_place_in_the_api(schema: Json, admin: Api) -> None:
    for declared in schema["entities"].values():
        ok(admin.get(f"/v1/{declared['plural']}", limit=1))
    for entity in schema["entities"]:
        refused(admin.get(f"/v1/{entity}s/none"), 404, "not_found")
