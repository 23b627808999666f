"""The contract, held by both places for a device's records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client_sdk.replica import SqliteReplica
from sync.device_memory import MemoryReplica
from sync.replica import Replica
from tests.contract.replica_contract import ReplicaContract


class TestMemoryReplica(ReplicaContract):
    @pytest.fixture
    def replica(self) -> Replica:
        return MemoryReplica("r_memory")


class TestSqliteReplica(ReplicaContract):
    @pytest.fixture
    def replica(self, tmp_path: Path) -> Iterator[Replica]:
        with SqliteReplica(tmp_path / "device.db") as replica:
            yield replica
