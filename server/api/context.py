"""What every endpoint works with: the parts that `create_app` joined, and the caller as the services know them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from flask import Flask, current_app

from server.api.metrics import Metrics
from server.services.devices import Desk
from server.services.keys import KeyRing
from server.services.pokes import Pokes
from server.services.sightings import Sightings
from server.services.throttle import Throttle
from server.settings import Settings
from server.store.enrolment import Database
from server.store.hub import PostgresHub
from server.web.auth import Caller, current_caller
from sync.store import Actor

EXTENSION: Final = "backhaul"


@dataclass(frozen=True)
class Parts:
    """The parts of one process. clock: ms since the Unix epoch. wake: tells the workers that there is work.

    redis: whether Redis answers; None if there is none to ask. owners: whose replica is whose, as far as it was asked.
    """

    settings: Settings
    keys: KeyRing
    engine: Database
    store: PostgresHub
    clock: Callable[[], int]
    wake: Callable[[], None]
    pokes: Pokes
    sightings: Sightings
    enrolment_failures: Throttle
    client_failures: Throttle
    metrics: Metrics
    push_slots: threading.BoundedSemaphore
    redis: Callable[[], bool] | None = None
    owners: dict[str, str] = field(default_factory=dict)

    @property
    def desk(self) -> Desk:
        """What enrolling and signing in need."""
        return Desk(self.engine, self.keys, self.settings, self.clock)


def keep_parts(app: Flask, parts: Parts) -> None:
    """Makes `parts` those of `app`."""
    app.extensions[EXTENSION] = parts


def parts() -> Parts:
    """The parts of the app that answers the current request."""
    kept: Parts = current_app.extensions[EXTENSION]
    return kept


def actor(caller: Caller | None = None) -> Actor:
    """The caller of the current request, as the services know writers."""
    who = caller or current_caller()
    return Actor(who.kind, who.subject, who.role, who.system or "platform", who.scopes, who.technician_id)
