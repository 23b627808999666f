"""A filter may be as long as a URL."""

from __future__ import annotations

import pytest

from tests.support.api import Api


@pytest.mark.parametrize("number", ["9" * 140_000, "0." + "9" * 20_000])
def test_a_number_that_no_record_can_have_is_refused(api: Api, number: str) -> None:
    got = api.office().get(f"/v1/work-orders?meter_reading={number}")

    assert (got.status_code, got.json["code"]) == (422, "invalid")
