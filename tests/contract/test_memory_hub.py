"""The reference implementation keeps the contract."""

from __future__ import annotations

import pytest

from sync.memory import MemoryHub
from tests.contract.hub_contract import HubContract


class TestMemoryHub(HubContract):
    @pytest.fixture
    def store(self) -> MemoryHub:
        return MemoryHub()
