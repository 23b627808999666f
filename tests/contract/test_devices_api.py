"""Enrolling a device, keeping it signed in over a bad link, and shutting it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jwt
import pytest
from sqlalchemy import delete, update

from server.services.devices import apply_revocations, create_client, normalised
from server.services.tokens import issue_refresh
from server.store.engine import transaction
from server.store.tables import device as device_table
from server.store.tables import refresh_family
from tests.support.api import Answer, Api, Caller, Device

PHONE = {"name": "Phone", "platform": "android", "app_version": "2.0"}


def code_for(api: Api, technician: str) -> str:
    code: str = api.office("dispatcher").post("/v1/enrolment-codes", {"technician_id": technician}).json["code"]
    return code


def refresh(api: Api, token: str) -> Answer:
    return api.nobody().post("/v1/token", {"grant_type": "refresh_token", "refresh_token": token})


def works(api: Api, access_token: str) -> bool:
    return Caller(api, access_token).get("/v1/changes").status_code == 200


# -- enrolling ----------------------------------------------------------------------------------------------------


def test_a_device_gets_exactly_its_technicians_scopes(api: Api) -> None:
    depot = api.add_depot()
    technician = api.add_technician(depot)

    enrolment = api.enrol(technician).enrolment

    assert enrolment["scopes"] == [f"tech:{technician}", f"stock:{depot}", "catalog:all"]
    assert enrolment["technician_id"] == technician
    assert {"device_id", "access_token", "expires_in", "refresh_token", "feed_epoch"} <= enrolment.keys()


def test_a_technician_without_a_depot_has_no_stock_scope(api: Api) -> None:
    technician = api.add_technician()

    assert api.enrol(technician).enrolment["scopes"] == [f"tech:{technician}", "catalog:all"]


def test_scopes_follow_the_technician_to_another_depot_at_once(api: Api) -> None:
    device = api.enrol(api.add_technician(api.add_depot()))
    depot = api.add_depot()

    api.office().patch(f"/v1/technicians/{device.technician}", {"depot_id": depot}, "*")

    assert f"stock:{depot}" in [scope["scope"] for scope in device.pull().json["scopes"]]


def test_a_code_works_once(api: Api) -> None:
    code = code_for(api, api.add_technician())

    first = api.nobody().post("/v1/devices", {"code": code, **PHONE})
    second = api.nobody().post("/v1/devices", {"code": code, **PHONE})

    assert first.status_code == 201
    assert (second.status_code, second.json["code"]) == (400, "invalid_grant")


def test_a_code_may_be_typed_in_small_letters_and_with_lookalikes(api: Api) -> None:
    code = code_for(api, api.add_technician())

    typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")

    assert api.nobody().post("/v1/devices", {"code": typed, **PHONE}).status_code == 201
    assert normalised(typed) == normalised(code)


def test_a_code_expires_after_15_minutes(api: Api) -> None:
    code = code_for(api, api.add_technician())
    api.clock.advance(seconds=901)

    assert api.nobody().post("/v1/devices", {"code": code, **PHONE}).status_code == 400


def test_no_code_is_made_for_an_unknown_technician(api: Api) -> None:
    got = api.office("dispatcher").post("/v1/enrolment-codes", {"technician_id": "T-nobody"})

    assert (got.status_code, got.json["code"]) == (422, "unknown_technician")


def test_a_code_is_stored_only_as_a_hash(api: Api) -> None:
    code = code_for(api, api.add_technician())

    with transaction(api.parts.engine) as connection:
        rows = connection.exec_driver_sql("SELECT enrolment_code::text FROM enrolment_code").scalars().all()

    assert code.replace("-", "") not in "".join(rows)


def test_who_guesses_codes_has_to_wait(own_api: Callable[..., AbstractContextManager[Api]]) -> None:
    with own_api() as api:
        answers = [api.nobody().post("/v1/devices", {"code": f"WRONG{n}", **PHONE}) for n in range(11)]
        assert [got.status_code for got in answers] == [400] * 10 + [429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        api.clock.advance(seconds=61)

        assert api.nobody().post("/v1/devices", {"code": "WRONG", **PHONE}).status_code == 400


@pytest.mark.parametrize(
    "body", [{}, {"code": 7}, {"code": "x" * 65, **PHONE}, {"code": "x", **PHONE, "public_key": [1]}]
)
def test_an_enrolment_that_is_none_says_where(api: Api, body: dict[str, Any]) -> None:
    got = api.nobody().post("/v1/devices", body)

    assert got.status_code == 422
    assert got.json["errors"]


# -- staying signed in --------------------------------------------------------------------------------------------


@pytest.fixture
def phone(api: Api) -> Device:
    return api.enrol(api.add_technician())


def test_a_refresh_token_brings_the_next_one(api: Api, phone: Device) -> None:
    got = refresh(api, phone.enrolment["refresh_token"])

    assert got.status_code == 200
    assert got.json["refresh_token"] != phone.enrolment["refresh_token"]
    assert works(api, got.json["access_token"])


def test_after_a_lost_answer_the_same_token_brings_the_same_successor(api: Api, phone: Device) -> None:
    first = refresh(api, phone.enrolment["refresh_token"]).json
    again = refresh(api, phone.enrolment["refresh_token"]).json

    assert again["refresh_token"] == first["refresh_token"]
    assert works(api, again["access_token"])


def test_a_token_used_after_its_successor_was_ends_the_family(api: Api, phone: Device) -> None:
    stolen = phone.enrolment["refresh_token"]
    second = refresh(api, stolen).json["refresh_token"]
    third = refresh(api, second).json["refresh_token"]

    reused = refresh(api, stolen)

    assert (reused.status_code, reused.json["code"]) == (400, "invalid_grant")
    assert refresh(api, third).status_code == 400
    assert "family" in api.parts.desk.revocations.path.read_text()


def test_the_end_of_a_family_does_not_end_the_device(api: Api, phone: Device) -> None:
    first = phone.enrolment["refresh_token"]
    refresh(api, refresh(api, first).json["refresh_token"])

    refresh(api, first)

    assert phone.push().status_code == 200
    assert api.office().get(f"/v1/devices/{phone.enrolment['device_id']}").json["revoked"] is None


def test_a_refresh_token_is_no_access_token_and_none_the_other_way(api: Api, phone: Device) -> None:
    assert not works(api, phone.enrolment["refresh_token"])
    assert refresh(api, phone.enrolment["access_token"]).status_code == 400


def test_an_access_token_expires_and_the_refresh_token_outlives_it(api: Api, phone: Device) -> None:
    api.clock.advance(seconds=901)

    assert phone.pull().status_code == 401
    assert refresh(api, phone.enrolment["refresh_token"]).status_code == 200


def restored(api: Api, phone: Device, counter: int | None) -> None:
    """The database as a backup has it: an older counter, or nothing of the device."""
    family = jwt.decode(phone.enrolment["refresh_token"], options={"verify_signature": False})["family"]
    with transaction(api.parts.engine) as connection:
        if counter is None:
            connection.execute(delete(refresh_family).where(refresh_family.c.id == family))
            connection.execute(delete(device_table).where(device_table.c.id == phone.enrolment["device_id"]))
        else:
            connection.execute(update(refresh_family).where(refresh_family.c.id == family).values(counter=counter))


def test_a_token_from_a_timeline_that_a_restore_lost_is_taken_over(api: Api, phone: Device) -> None:
    token = phone.enrolment["refresh_token"]
    for _ in range(3):
        token = refresh(api, token).json["refresh_token"]
    restored(api, phone, counter=1)

    got = refresh(api, token)

    assert got.status_code == 200
    assert refresh(api, got.json["refresh_token"]).status_code == 200


def test_a_device_that_a_restore_lost_is_taken_over(api: Api, phone: Device) -> None:
    restored(api, phone, counter=None)
    assert phone.pull().status_code == 401

    got = refresh(api, phone.enrolment["refresh_token"])

    assert got.status_code == 200
    assert works(api, got.json["access_token"])
    assert api.office().get(f"/v1/devices/{phone.enrolment['device_id']}").json["technician_id"] == phone.technician


def test_a_device_that_was_revoked_is_not_taken_over_after_a_restore(api: Api, phone: Device) -> None:
    api.office().post(f"/v1/devices/{phone.enrolment['device_id']}/revoke", {"reason": "lost"})
    restored(api, phone, counter=None)

    got = refresh(api, phone.enrolment["refresh_token"])

    assert (got.status_code, got.json["code"], got.json["reason"]) == (401, "device_revoked", "lost")


def test_revocations_outside_the_database_are_applied_after_a_restore(api: Api, phone: Device) -> None:
    device_id = phone.enrolment["device_id"]
    api.office().post(f"/v1/devices/{device_id}/revoke", {"reason": "retired"})
    with transaction(api.parts.engine) as connection:
        connection.execute(update(device_table).where(device_table.c.id == device_id).values(revoked=None))
    assert phone.pull().status_code == 200

    apply_revocations(api.parts.desk)

    assert phone.pull().json["code"] == "device_revoked"


def test_a_token_that_we_did_not_sign_is_refused(api: Api, phone: Device) -> None:
    forged = jwt.encode({"family": "f", "device": phone.enrolment["device_id"], "counter": 99}, "x" * 32)

    assert refresh(api, forged).json["code"] == "invalid_grant"


def test_a_token_naming_another_device_of_the_family_is_refused(api: Api, phone: Device) -> None:
    claims = jwt.decode(phone.enrolment["refresh_token"], options={"verify_signature": False})
    odd = issue_refresh(
        api.parts.keys, family=claims["family"], device="d_other", technician=phone.technician, counter=1,
        now=api.clock() / 1000, issuer="backhaul",
    )  # fmt: skip

    assert refresh(api, odd).status_code == 400


# -- integrations -------------------------------------------------------------------------------------------------


def test_an_integration_gets_a_token_for_its_secret(api: Api) -> None:
    id, secret = create_client(api.parts.desk, name="ERP bridge", system="erp", scopes=("*",), by="user:olga")

    asked = {"grant_type": "client_credentials", "client_id": id, "client_secret": secret}
    got = api.nobody().post("/v1/token", asked)
    wrong = api.nobody().post("/v1/token", {**asked, "client_secret": "wrong"})

    assert got.status_code == 200
    assert "refresh_token" not in got.json
    assert Caller(api, got.json["access_token"]).get("/v1/parts").status_code == 200
    assert wrong.json["code"] == "invalid_grant"


# -- looking after them -------------------------------------------------------------------------------------------


def test_the_office_sees_how_a_device_is_doing(api: Api, phone: Device) -> None:
    order = api.add_work_order(phone.technician)
    phone.pull()
    api.add_work_order(phone.technician)
    edit = {"entity": "work_order", "id": order, "base": {"hub": 1}}
    api.enrol(phone.technician).push({**edit, "patch": {"resolution": "one"}})
    phone.push({**edit, "patch": {"resolution": "two"}})

    seen = api.office("dispatcher").get(f"/v1/devices/{phone.enrolment['device_id']}").json

    assert (seen["name"], seen["platform"], seen["app_version"]) == ("Phone", "android", "2.0")
    assert seen["parked_count"] == 1
    assert seen["pending_age_s"] is not None
    assert seen["cursor_lag"] > 0
    assert all(seen[moment] for moment in ("last_seen", "last_pull", "last_push", "enrolled_at"))


def test_the_version_of_the_app_is_kept_up_to_date(api: Api, phone: Device) -> None:
    phone.get("/v1/changes", {"X-App-Version": "3.1.4"})

    assert api.office().get(f"/v1/devices/{phone.enrolment['device_id']}").json["app_version"] == "3.1.4"


def test_the_skew_of_a_devices_clock_is_shown(api: Api, phone: Device) -> None:
    body = {"replica": phone.replica, "mutations": [], "sent_at": "2031-01-01T00:00:00Z"}
    phone.post("/v1/push", body)

    assert api.office().get(f"/v1/devices/{phone.enrolment['device_id']}").json["clock_skew_ms"] > 86_400_000


def test_devices_are_listed_page_by_page(api: Api) -> None:
    technician = api.add_technician()
    made = {api.enrol(technician).enrolment["device_id"] for _ in range(3)}

    first = api.office().get(f"/v1/devices?technician_id={technician}&limit=2&sort=-last_seen").json
    second = (
        api.office().get(f"/v1/devices?technician_id={technician}&limit=2&sort=-last_seen&after={first['next']}").json
    )

    assert {item["id"] for item in first["items"] + second["items"]} == made
    assert second["next"] is None


@pytest.mark.parametrize("reason", ["retired", "lost"])
def test_a_revoked_device_is_refused_from_its_next_request_on(api: Api, phone: Device, reason: str) -> None:
    revoked = api.office("dispatcher").post(f"/v1/devices/{phone.enrolment['device_id']}/revoke", {"reason": reason})

    assert revoked.json["revoked"] == reason
    for got in (phone.pull(), phone.push(), refresh(api, phone.enrolment["refresh_token"])):
        assert (got.status_code, got.json["code"], got.json["reason"]) == (401, "device_revoked", reason)
    lines = [json.loads(line) for line in api.parts.desk.revocations.path.read_text().splitlines()]
    assert phone.enrolment["device_id"] in [line["device"] for line in lines]


def test_what_a_lost_devices_replica_still_sends_is_parked_whole(api: Api, phone: Device) -> None:
    order = api.add_work_order(phone.technician)
    edit = {"entity": "work_order", "id": order, "patch": {"resolution": "done"}, "base": {"hub": 1}}
    phone.push(edit)
    api.office().post(f"/v1/devices/{phone.enrolment['device_id']}/revoke", {"reason": "lost"})
    heir = api.enrol(phone.technician)
    heir.replica, heir.n = phone.replica, phone.n

    (result,) = heir.push({**edit, "patch": {"meter_reading": "5"}}).json["results"]

    assert (result["status"], result["problem"]["code"]) == ("parked", "device_lost")
    assert "meter_reading" not in api.office().get(f"/v1/work-orders/{order}").json


def test_what_a_retired_devices_replica_still_sends_is_taken(api: Api, phone: Device) -> None:
    order = api.add_work_order(phone.technician)
    edit = {"entity": "work_order", "id": order, "base": {"hub": 1}}
    phone.push({**edit, "patch": {"resolution": "done"}})
    api.office().post(f"/v1/devices/{phone.enrolment['device_id']}/revoke", {"reason": "retired"})
    heir = api.enrol(phone.technician)
    heir.replica, heir.n = phone.replica, phone.n

    (result,) = heir.push({**edit, "patch": {"meter_reading": "5"}}).json["results"]

    assert result["status"] == "applied"


def test_enrolling_and_revoking_are_in_the_audit(api: Api, phone: Device) -> None:
    device_id = phone.enrolment["device_id"]
    api.office("dispatcher").post(
        f"/v1/devices/{device_id}/revoke", {"reason": "retired"}, {"X-Correlation-Id": f"c-{device_id}"}
    )

    entries = api.office("auditor").get(f"/v1/audit?subject=device:{device_id}").json["items"]

    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("device.revoke", "user:dispatcher"),
        ("device.enrol", f"device:{device_id}"),
    ]
    assert entries[0]["correlation_id"] == f"c-{device_id}"
