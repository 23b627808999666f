"""One database and one API for the tests of this folder; each test makes its own technicians and records in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.store.migrate import upgrade
from tests.support.api import Api, open_api


@pytest.fixture(scope="session")
def api_database(make_database: Callable[[], str]) -> str:
    url = make_database()
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def shared_api(api_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with open_api(api_database, tmp_path_factory.mktemp("data")) as api:
        yield api


@pytest.fixture
def api(shared_api: Api) -> Api:
    """The shared API at the present time, whatever the test before did to its clock."""
    shared_api.clock.ahead_ms = 0
    return shared_api


@pytest.fixture
def own_api(api_database: str, tmp_path: Path) -> Callable[..., object]:
    """Call it for an API of this test's own, with other settings, on the same database."""

    def opened(**settings: object) -> object:
        return open_api(api_database, tmp_path, **settings)

    return opened
