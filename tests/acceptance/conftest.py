"""One server for all acceptance tests, started the way a user starts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.client import BACKHAUL, Api, Company, Server

SETTINGS = ("DATABASE_URL", "REDIS_URL", "DATA_DIR", "SIGNING_KEYS", "HOST", "PORT", "ISSUER", "TOMBSTONE_DAYS")
"""What a developer may have set, and what would make this server another one."""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    data_dir = Path(tempfile.mkdtemp(prefix="bh", dir="/tmp"))
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment["MIN_APP_VERSION"] = "1.0.0"
    process = subprocess.Popen(
        [BACKHAUL, "run", "--port", "0", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    too_long = threading.Timer(60, process.kill)
    too_long.start()
    printed = []
    try:
        for line in process.stdout:
            printed.append(line)
            if line.startswith("ready http://"):
                break
        else:
            pytest.fail(f"the server did not come up: {''.join(printed)}")
        too_long.cancel()
        threading.Thread(target=process.stdout.read, daemon=True).start()
        made = Server(line.removeprefix("ready ").strip(), data_dir)
        yield made
        for caller in made.callers:
            caller.close()
    finally:
        too_long.cancel()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture
def nobody(server: Server) -> Api:
    """A caller without a token."""
    return server.api()


@pytest.fixture
def admin(server: Server) -> Api:
    return server.office("admin")


@pytest.fixture
def reviewer(server: Server) -> Api:
    return server.office("reviewer")


@pytest.fixture
def company(server: Server) -> Company:
    """A company of this test's own."""
    return Company.found(server)


@pytest.fixture(scope="session")
def shared(server: Server) -> Company:
    """A company for tests that change nothing which another test looks at."""
    return Company.found(server)
