"""Backhaul on a device: work offline, sync when there is a connection.

with FieldClient.open("device.db") as client:
    client.join("https://backhaul.example", "K7QF-2M9D-0XAB")
    client.sync()
    client.work_orders.update("WO-1", status="in_progress")
    with client.group():
        used = client.part_consumptions.create(work_order_id="WO-1", part_id="P-100", quantity="1", …)
        client.work_orders.update("WO-1", status="completed", resolution="belt replaced")
    client.sync()
    print(client.status())
"""

from __future__ import annotations

from client_sdk.client import FieldClient, Status, Trouble
from client_sdk.collection import Collection, add, append, increment, remove
from client_sdk.replica import SqliteReplica, StorageFailed, StorageTooNew
from client_sdk.retry import Retries
from client_sdk.transport import HttpTransport, Tokens

__all__ = [
    "Collection",
    "FieldClient",
    "HttpTransport",
    "Retries",
    "SqliteReplica",
    "Status",
    "StorageFailed",
    "StorageTooNew",
    "Tokens",
    "Trouble",
    "add",
    "append",
    "increment",
    "remove",
]
