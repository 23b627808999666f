"""The device SDK against the real server over HTTP: whole stories, in a technician's words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from client_sdk import FieldClient, Retries
from sync.errors import DeviceRevoked, InvalidGrant
from sync.record import Key
from tests.support.api import Api

Join = Callable[..., FieldClient]


@pytest.fixture
def technician(api: Api) -> str:
    return api.add_technician(api.add_depot())


@pytest.fixture
def open_device(api: Api, tmp_path: Path) -> Callable[[str], FieldClient]:
    def open_(name: str) -> FieldClient:
        return FieldClient.open(
            tmp_path / name,
            http=httpx.WSGITransport(app=api.app),
            now=lambda: datetime.fromtimestamp(api.clock() / 1000, UTC).astimezone(),
            retries=Retries(sleep=lambda seconds: None),
        )

    return open_


@pytest.fixture
def join(api: Api, technician: str, open_device: Callable[[str], FieldClient]) -> Join:
    def join_(name: str) -> FieldClient:
        code = api.office("dispatcher").post("/v1/enrolment-codes", {"technician_id": technician}).json["code"]
        client = open_device(name)
        assert client.join("http://hub", code, name) == technician
        client.sync()
        return client

    return join_


def test_a_day_offline_arrives_whole(api: Api, technician: str, join: Join) -> None:
    order = api.add_work_order(technician, status="assigned")
    with join("phone") as phone, join("tablet") as tablet:
        phone.work_orders.update(order, status="in_progress")
        with phone.group():
            phone.notes.create("N-" + order, parent=Key("work_order", order), text="Belt was worn")
            phone.work_orders.update(order, status="completed", resolution="belt replaced")
        tablet.work_orders.update(order, meter_reading="120.5")
        statuses = [result.status for client in (phone, tablet, phone) for _, result in client.sync().answered]
        tablet.sync()
        shown = [client.work_orders.get(order) for client in (phone, tablet)]

    assert statuses == ["applied"] * 4
    assert shown[0] == shown[1]
    assert shown[0] is not None
    assert (shown[0].status, shown[0].resolution, str(shown[0].meter_reading)) == (
        "completed",
        "belt replaced",
        "120.5",
    )


def test_what_two_devices_wrote_differently_waits_and_is_told(api: Api, technician: str, join: Join) -> None:
    order = api.add_work_order(technician)
    with join("phone") as phone, join("tablet") as tablet:
        phone.work_orders.update(order, resolution="belt replaced")
        tablet.work_orders.update(order, resolution="pump replaced")
        phone.sync()
        tablet.sync()
        [trouble] = tablet.parked()

        assert trouble.values == {"resolution": "pump replaced"}
        assert trouble.review_id is not None
        assert "1 change is with the office" in str(tablet.status())
        assert tablet.work_orders.values(order) == phone.work_orders.values(order)


def test_an_expired_token_is_renewed_without_anybody_noticing(api: Api, technician: str, join: Join) -> None:
    with join("phone") as phone:
        before = phone.replica.setting("refresh_token")
        api.clock.advance(seconds=3_600)
        phone.sync()

        assert phone.replica.setting("refresh_token") != before


def test_a_code_works_once(api: Api, technician: str, open_device: Callable[[str], FieldClient]) -> None:
    code = api.office("dispatcher").post("/v1/enrolment-codes", {"technician_id": technician}).json["code"]
    with open_device("phone") as phone, open_device("tablet") as tablet:
        phone.join("http://hub", code)
        with pytest.raises(InvalidGrant):
            tablet.join("http://hub", code)


def test_a_phone_restored_from_its_backup_loses_and_doubles_nothing(
    api: Api, technician: str, join: Join, open_device: Callable[[str], FieldClient], tmp_path: Path
) -> None:
    order = api.add_work_order(technician)
    parent = Key("work_order", order)
    phone = join("phone")
    phone.notes.create(order + "-both", parent=parent, text="captured before the copy")
    phone.close()
    for suffix in ("", ".device"):  # the marker as well: only the server can tell the two apart
        shutil.copyfile(tmp_path / f"phone{suffix}", tmp_path / f"copy{suffix}")
    with open_device("phone") as phone, open_device("copy") as copy:
        phone.notes.create(order + "-1", parent=parent, text="on the phone")
        copy.notes.create(order + "-2", parent=parent, text="on the copy")
        copy.notes.update(order + "-2", text="on the copy, changed")
        phone.sync()
        renamed = copy.sync().renamed
        phone.sync()
        texts = {note.id: note.text for note in phone.notes.find() if note.id.startswith(order)}

        assert len(renamed) == 1
        assert phone.replica.shown_all("note") == copy.replica.shown_all("note")
        assert texts == {
            order + "-both": "captured before the copy",
            order + "-1": "on the phone",
            order + "-2": "on the copy, changed",
        }


@pytest.mark.parametrize(("reason", "kept"), [("retired", 1), ("lost", 0)])
def test_a_revoked_phone_shows_nothing_any_more(api: Api, technician: str, join: Join, reason: str, kept: int) -> None:
    order = api.add_work_order(technician)
    with join("phone") as phone:
        phone.work_orders.update(order, resolution="x")
        device = phone.replica.setting("device_id")
        got = api.office().post(f"/v1/devices/{device}/revoke", {"reason": reason})
        with pytest.raises(DeviceRevoked):
            phone.sync()

        assert got.status_code < 300
        assert phone.work_orders.find() == []
        assert len(phone.replica.outbox()) == kept
        assert not phone.status().enrolled


def test_a_retired_phone_that_is_enrolled_again_sends_what_it_kept(api: Api, technician: str, join: Join) -> None:
    order = api.add_work_order(technician)
    with join("phone") as phone:
        phone.work_orders.update(order, resolution="kept in the cellar")
        device = phone.replica.setting("device_id")
        api.office().post(f"/v1/devices/{device}/revoke", {"reason": "retired"})
        with pytest.raises(DeviceRevoked):
            phone.sync()
    with join("phone") as phone:
        job = phone.work_orders.get(order)

    assert job is not None
    assert job.resolution == "kept in the cellar"
