"""gunicorn's worker as the server uses it."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from server.cli.worker import Worker


def test_a_worker_told_to_stop_while_it_hands_out_work_stops() -> None:
    ended = threading.Event()
    worker: Any = Worker.__new__(Worker)
    worker.cfg = SimpleNamespace(worker_int=lambda _: None)
    with ThreadPoolExecutor(1) as pool:
        worker.tpool = pool

        def interrupted() -> None:
            with pool._shutdown_lock:  # as `submit` holds it
                try:
                    worker.handle_quit(signal.SIGINT, None)
                except SystemExit:
                    ended.set()

        threading.Thread(target=interrupted, daemon=True).start()

        assert ended.wait(5)
