"""`backhaul serve`: the API under gunicorn, in threads, one process a core. `run` uses the same with one process."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import Any

from server.cli.logs import log_config
from server.cli.options import Subparsers, add_command, fail, settings_of
from server.settings import Settings, SettingsError, count_together

GRACE_S = 30  # a long poll or a stream lasts up to 25 s
STUCK_S = 60  # a process whose main loop shows no sign of life for that long is replaced
KEEPALIVE_S = 75  # longer than the idle timeout that proxies give to a connection, so that they close first
BACKLOG = 1024


def add(subparsers: Subparsers) -> None:
    """Add `serve`."""
    parser = add_command(
        subparsers,
        "serve",
        serve,
        summary="serve the API with gunicorn, on your own PostgreSQL",
        details="Stops on SIGTERM once running requests are answered.",
        examples="  DATABASE_URL=postgresql://user:secret@db/backhaul backhaul serve --host 0.0.0.0",
    )
    parser.add_argument("--host", metavar="ADDRESS", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="the port to listen on; 0 picks one (8080)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (one a core)")


def serve(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    settings = settings_of(args)
    if not settings.database_url:
        return fail(
            "serve needs a PostgreSQL of yours: set DATABASE_URL=postgresql://user:password@host:5432/backhaul, "
            "or use `backhaul run`, which brings its own.",
            status=2,
        )
    workers = args.workers or os.cpu_count() or 1
    listener = listen(settings)
    print(f"listening on {url_of(listener)} with {workers} processes", flush=True)
    if workers > 1:
        count_together(settings.data_dir / "metrics")
    serve_forever(settings, listener, workers)
    return 0


def listen(settings: Settings) -> socket.socket:
    """A socket at the address of the settings. Raises SettingsError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Choose another with --host and --port; --port 0 picks a free one."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_forever(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Serve on `listener` until a signal ends it, by SystemExit. SIGTERM lets running requests finish; SIGINT does not.

    The app is loaded before the fork, so that its code is in memory once; the engine starts anew in each process by
    itself (`server.store.engine`).
    """
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # ships no types

    from server.app import create_app

    class Server(BaseApplication):  # type: ignore[misc]  # what it inherits is untyped
        def load_config(self) -> None:
            for name, value in gunicorn_options(settings, listener, workers).items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return create_app(settings)

    Server().run()


def gunicorn_options(settings: Settings, listener: socket.socket, workers: int) -> dict[str, Any]:
    """What gunicorn is told."""
    memory = Path("/dev/shm")  # the heartbeat file; on a slow disk, writing it could block for seconds
    return {
        "bind": f"fd://{listener.detach()}",  # gunicorn makes it its own
        "workers": workers,
        "worker_class": "server.cli.worker.Worker",  # a gthread
        "threads": settings.threads,
        "preload_app": True,
        "timeout": STUCK_S,
        "graceful_timeout": GRACE_S,
        "keepalive": KEEPALIVE_S,
        "loglevel": settings.log_level.lower(),
        "logconfig_dict": log_config(settings.log_level),
        "worker_tmp_dir": str(memory) if os.access(memory, os.W_OK) else None,
        "proc_name": "backhaul",
        # It runs in a thread of the parent, which forks.
        "control_socket_disable": True,
    }
