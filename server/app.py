"""The API as a WSGI application: `create_app` joins its parts, and is the only place that knows them all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from server.api import changes, conflicts, devices, operations, records
from server.api.context import Parts, keep_parts
from server.api.metrics import Metrics, install_metrics
from server.services.keys import KeyRing
from server.services.pokes import Pokes
from server.services.sightings import Sightings
from server.services.throttle import Throttle
from server.settings import Settings
from server.store.engine import make_engine
from server.store.enrolment import Database, device_access, write_sightings
from server.store.hub import PostgresHub
from server.store.listing import read_figures
from server.store.notify import listen, scope_heads
from server.web.auth import install_auth
from server.web.correlation import install_correlation
from server.web.log import install_request_log
from server.web.problems import ProblemApi, install_problems
from sync.errors import NotFound

FAILURES: Final = 10  # wrong codes or secrets of one caller a minute
OPENAPI: Final = "3.1.0"
_REDIS_TIMEOUT_S: Final = 0.5


def create_app(
    settings: Settings,
    *,
    engine: Database | None = None,
    store: PostgresHub | None = None,
    clock: Callable[[], int] | None = None,
    wake: Callable[[], None] | None = None,
    redis: Callable[[], bool] | None = None,
) -> Flask:
    """The API of one process.

    settings: with a database URL. engine, store: made from it unless given. clock: ms since the Unix epoch. wake: tells
    whoever delivers that there is work; nobody unless given. redis: whether Redis answers.
    Raises ValueError without a database URL and without an engine.
    """
    parts = _join(settings, engine, store, clock or _now, wake or _nobody, redis or _redis_of(settings))
    app = Flask("backhaul", static_folder=None)
    app.config.update(
        API_TITLE="Backhaul",
        API_VERSION=_version(),
        OPENAPI_VERSION=OPENAPI,
        OPENAPI_URL_PREFIX="/v1",
        API_SPEC_OPTIONS={
            "security": [{"bearer": []}],
            "components": {
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "at+jwt"}}
            },
        },
    )
    app.url_map.strict_slashes = False
    keep_parts(app, parts)
    install_correlation(app)
    install_metrics(app, parts.metrics)
    install_request_log(app)
    install_auth(
        app,
        keys=parts.keys,
        issuer=settings.issuer,
        device_lookup=partial(device_access, parts.engine),
        clock=lambda: parts.clock() / 1000,
    )
    app.before_request(_refuse_nul)
    app.after_request(_note_device)
    api = ProblemApi(app)
    install_problems(app, api)
    blueprints = (changes.blueprint, devices.blueprint, conflicts.blueprint, operations.blueprint, *records.blueprints)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    own = next(rule for rule in app.url_map.iter_rules() if rule.rule == "/v1/openapi.json")
    api.spec.path(rule=own, operations={"get": _DOCUMENT})
    return app


_DOCUMENT: Final = {
    "summary": "This document",
    "security": [],
    "responses": {"200": {"description": "OpenAPI", "content": {"application/json": {"schema": {"type": "object"}}}}},
}


def _join(
    settings: Settings,
    engine: Database | None,
    store: PostgresHub | None,
    clock: Callable[[], int],
    wake: Callable[[], None],
    redis: Callable[[], bool] | None,
) -> Parts:
    if engine is None:
        if settings.database_url is None:
            raise ValueError("create_app needs settings with a database URL, or an engine")
        engine = make_engine(
            settings.database_url,
            pool_size=settings.pool_size,
            statement_timeout_ms=settings.statement_timeout_ms,
            lock_timeout_ms=settings.lock_timeout_ms,
        )
    used = engine
    return Parts(
        settings=settings,
        keys=KeyRing.open(settings.keys_dir),
        engine=used,
        store=store or PostgresHub(used),
        clock=clock,
        wake=wake,
        pokes=Pokes(partial(listen, used), partial(scope_heads, used), settings.waiters),
        sightings=Sightings(lambda seen: write_sightings(used, [asdict(one) for one in seen])),
        enrolment_failures=Throttle(FAILURES, 60),
        client_failures=Throttle(FAILURES, 60),
        metrics=Metrics(partial(read_figures, used)),
        push_slots=threading.BoundedSemaphore(settings.push_slots),
        redis=redis,
    )


def _refuse_nul() -> None:
    """An address with a NUL names nothing, and the database could not even look for it."""
    if any("\0" in str(value) for value in (request.view_args or {}).values()):
        raise NotFound


def _note_device(response: Response) -> Response:
    if "caller" in g:
        devices.note_device()
    return response


def _now() -> int:
    return time.time_ns() // 1_000_000


def _nobody() -> None:
    """Nobody is told."""


def _version() -> str:
    try:
        return version("backhaul")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def _redis_of(settings: Settings) -> Callable[[], bool] | None:
    """Asks whether something listens where Redis should; what it says is the business of who speaks with it."""
    if settings.redis_url is None:
        return None
    url = urlsplit(settings.redis_url)

    def answers() -> bool:
        try:
            if url.scheme == "unix":
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(_REDIS_TIMEOUT_S)
                    connection.connect(url.path)
            else:
                socket.create_connection((url.hostname or "localhost", url.port or 6379), _REDIS_TIMEOUT_S).close()
        except OSError:
            return False
        return True

    return answers
