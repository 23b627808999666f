"""Section 1: joining, staying signed in over lost answers, and being shut out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.acceptance.client import Api, Company, Device, Json, Server, is_moment, new_id, ok, refused


def refresh(api: Api, token: str) -> Json:
    return ok(api.post("/v1/token", {"grant_type": "refresh_token", "refresh_token": token}))


def refuse_refresh(api: Api, token: str, status: int = 400, code: str = "invalid_grant") -> None:
    refused(api.post("/v1/token", {"grant_type": "refresh_token", "refresh_token": token}), status, code)


def note_on(device: Device, work_order: str) -> Json:
    return device.mutation(
        "note", new_id("N"), "create", {"parent": {"entity": "work_order", "id": work_order}, "text": "x"}
    )


@pytest.mark.parametrize("role", ["dispatcher", "admin"])
def test_an_enrolment_code_lasts_a_quarter_of_an_hour(server: Server, company: Company, role: str) -> None:
    asked = {"technician_id": company.technician, "note": "new phone"}
    made = ok(server.office(role).post("/v1/enrolment-codes", asked), 201)
    assert is_moment(made["expires_at"])
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert 880 < left.total_seconds() <= 901
    assert made["code"]


def test_a_code_for_nobody_is_refused(admin: Api) -> None:
    for body, code in (
        ({"technician_id": new_id("T")}, "unknown_technician"),
        ({}, "invalid"),
        ({"technician_id": None}, "invalid"),
        ({"technician_id": 7}, "invalid"),
    ):
        refused(admin.post("/v1/enrolment-codes", body), 422, code)


def test_a_code_of_the_command_line_lets_a_device_join(server: Server, company: Company) -> None:
    code = server.command("enrol", "--technician", company.technician)
    device = server.join(company.technician, code)
    assert device.joined.keys() >= {
        "device_id",
        "technician_id",
        "scopes",
        "access_token",
        "expires_in",
        "refresh_token",
        "feed_epoch",
    }
    assert device.joined["technician_id"] == company.technician
    assert set(device.joined["scopes"]) == {f"tech:{company.technician}", f"stock:{company.depot}", "catalog:all"}
    assert 0 < device.joined["expires_in"] <= 900


def test_a_code_is_good_once(server: Server, company: Company, nobody: Api) -> None:
    code = ok(company.admin.post("/v1/enrolment-codes", {"technician_id": company.technician}), 201)["code"]
    server.join(company.technician, code)
    asked = {"code": code, "name": "phone", "platform": "ios", "app_version": "2.0.0"}
    refused(nobody.post("/v1/devices", asked), 400, "invalid_grant")
    for wrong in ("AAAA-AAAA-AAAA", "", "\u00e4", "x" * 10_000):
        assert nobody.post("/v1/devices", asked | {"code": wrong}).status_code in {400, 422}
    for body in ({}, {"code": None}, {"code": 7, "name": "x"}):
        refused(nobody.post("/v1/devices", body), 422, "invalid")


def test_a_lost_answer_to_a_refresh_does_no_harm(server: Server, company: Company, nobody: Api) -> None:
    first = company.device().joined["refresh_token"]
    second = refresh(nobody, first)
    assert second.keys() >= {"access_token", "expires_in", "refresh_token"}
    assert second["refresh_token"] != first
    for _ in range(3):
        again = refresh(nobody, first)
        assert again["refresh_token"] == second["refresh_token"]
        assert server.api(again["access_token"]).get("/v1/changes").status_code == 200
    third = refresh(nobody, second["refresh_token"])
    assert third["refresh_token"] != second["refresh_token"]
    assert refresh(nobody, second["refresh_token"])["refresh_token"] == third["refresh_token"]


def test_a_refresh_token_used_again_later_ends_the_family(company: Company, nobody: Api) -> None:
    first = company.device().joined["refresh_token"]
    second = refresh(nobody, first)["refresh_token"]
    third = refresh(nobody, second)["refresh_token"]
    refuse_refresh(nobody, first)
    for token in (first, second, third):
        refuse_refresh(nobody, token)


def test_what_is_no_refresh_token_is_refused(company: Company, nobody: Api) -> None:
    device = company.device()
    token = device.joined["refresh_token"]
    for wrong in (
        "",
        "x",
        token[:-3] + "AAA",
        token[:-1],
        device.joined["access_token"],
        "a.b.c",
        "\u00e4",
        "x" * 10_000,
    ):
        answer = nobody.post("/v1/token", {"grant_type": "refresh_token", "refresh_token": wrong})
        assert answer.status_code in {400, 422}, wrong
    for body in (
        {},
        {"grant_type": "refresh_token"},
        {"grant_type": None, "refresh_token": token},
        {"grant_type": "x"},
    ):
        assert nobody.post("/v1/token", body).status_code in {400, 422}, body
    refresh(nobody, token)


def test_the_office_sees_how_its_devices_are(company: Company) -> None:
    device = company.device()
    device.push(note_on(device, company.assigned()))
    device.pull()
    seen = ok(company.admin.get(f"/v1/devices/{device.id}"))
    listed = ok(company.admin.get("/v1/devices", technician_id=company.technician))["items"]
    assert [item.get("id") or item.get("device_id") for item in listed] == [device.id]
    for subject in (
        ("last", "seen"),
        ("last", "pull"),
        ("last", "push"),
        ("lag",),
        ("pending",),
        ("parked",),
        ("skew",),
        ("version",),
    ):
        named = [key for key in seen if all(part in key for part in subject)]
        assert named, f"nothing tells of {' '.join(subject)}: {sorted(seen)}"
    moments = [
        seen[key] for key in seen if key.startswith("last_") and any(what in key for what in ("seen", "pull", "push"))
    ]
    assert len(moments) >= 3
    assert all(is_moment(moment) for moment in moments)
    assert not [key for key in seen if "token" in key or "secret" in key]
    refused(company.admin.get(f"/v1/devices/{new_id('d')}"), 404, "not_found")


def test_a_retired_device_is_shut_out_and_its_replica_goes_on_elsewhere(
    server: Server, company: Company, nobody: Api
) -> None:
    work_order = company.assigned()
    old = company.device()
    old.push(note_on(old, work_order))
    ok(company.admin.post(f"/v1/devices/{old.id}/revoke", {"reason": "retired"}))
    refused(old.api.get("/v1/changes"), 401, "device_revoked")
    refused(old.send(note_on(old, work_order)), 401, "device_revoked")
    refused(old.api.post("/v1/sync", {"push": None, "cursor": None}), 401, "device_revoked")
    refuse_refresh(nobody, old.joined["refresh_token"], 401, "device_revoked")
    new = company.device()
    new.replica, new.n = old.replica, 1
    assert new.push(note_on(new, work_order))[0]["status"] == "applied"
    new.pull()
    assert new.last["last_n"] == 2


def test_what_a_lost_devices_replica_still_pushes_is_parked_whole(company: Company) -> None:
    work_order = company.assigned()
    lost = company.device()
    lost.push(note_on(lost, work_order))
    ok(company.admin.post(f"/v1/devices/{lost.id}/revoke", {"reason": "lost"}))
    refused(lost.api.get("/v1/changes"), 401, "device_revoked")
    new = company.device()
    new.replica, new.n = lost.replica, 1
    note = note_on(new, work_order)
    plan = new.mutation("work_order", work_order, "update", {"title": "changed"})
    results = new.push(note, plan)
    assert [result["status"] for result in results] == ["parked", "parked"]
    assert company.admin.get(f"/v1/notes/{note['id']}").status_code == 404
    assert company.admin.read("work-orders", work_order)["title"] == "Belt"


def test_a_revocation_says_why_and_whom(company: Company) -> None:
    device = company.device()
    for body in ({}, {"reason": "stolen"}, {"reason": None}):
        refused(company.admin.post(f"/v1/devices/{device.id}/revoke", body), 422, "invalid")
    refused(company.admin.post(f"/v1/devices/{new_id('d')}/revoke", {"reason": "lost"}), 404, "not_found")
    ok(device.api.get("/v1/changes"))


def test_a_replica_belongs_to_the_technician_who_first_pushed_it(company: Company) -> None:
    work_order = company.assigned()
    mine = company.device()
    mine.push(note_on(mine, work_order))
    same = company.device()
    same.replica, same.n = mine.replica, 1
    assert same.push(note_on(same, work_order))[0]["status"] == "applied"
    other = company.device(company.colleague)
    other.replica, other.n = mine.replica, 2
    refused(other.send(note_on(other, work_order)), 404, "not_found")
    refused(other.api.get("/v1/changes", replica=mine.replica), 404, "not_found")
    mine.pull()
    assert mine.last["last_n"] == 2


def test_a_replica_that_was_never_pushed_has_no_last_n(company: Company) -> None:
    page = ok(company.device().api.get("/v1/changes", replica=new_id("r_")))
    assert (page["last_n"], page["durable_n"]) == (0, 0)


def test_a_token_for_a_device_needs_the_device(company: Company) -> None:
    """Scopes come from the device's row: they follow the technician, whatever the token was made for."""
    device = company.device()
    device.pull()
    depot = company.admin.create("locations", id=new_id("WH"), name="Other", kind="warehouse")["id"]
    company.admin.change("locations", depot, depot_id=depot)
    company.admin.change("technicians", company.technician, depot_id=depot)
    device.pull()
    assert {scope["scope"] for scope in device.last["scopes"]} == {
        f"tech:{company.technician}",
        f"stock:{depot}",
        "catalog:all",
    }
