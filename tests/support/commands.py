"""The command `backhaul` as an operator types it, and `backhaul run` in the background."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.embedded import EmbeddedPostgres

BACKHAUL = (sys.executable, "-m", "client_sdk")
START_S = 60
OURS = ("DATABASE_URL", "REDIS_URL", "DATA_DIR", "SIGNING_KEYS", "HOST", "PORT")


def environment(**variables: str) -> dict[str, str]:
    """The environment without what would lead a command to a server of somebody else, and with `variables`."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**inherited, "PYTHONUNBUFFERED": "1", **variables}


def backhaul(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`backhaul ARGUMENTS`, run to its end."""
    return subprocess.run(
        [*BACKHAUL, *arguments], capture_output=True, text=True, env=environment(**variables), timeout=60, check=False
    )


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path a socket can have, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bh-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Running:
    """`backhaul run --port 0` with its data in `data_dir/d`; `output` has what it printed so far."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.output = data_dir / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*BACKHAUL, "run", "--port", "0", "--data-dir", str(data_dir / "d"), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until its output has `pattern`."""
        end = time.monotonic() + START_S
        while not (found := re.search(pattern, self.output.read_text(), re.MULTILINE)):
            assert self.process.poll() is None, f"it ended:\n{self.output.read_text()}"
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.output.read_text()}"
            time.sleep(0.05)
        return found

    def stop(self, number: signal.Signals) -> int:
        """Its exit status after that signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def clean_up(self) -> None:
        """After a test that failed: nothing stays."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            database = EmbeddedPostgres(self.output.parent / "d")
            database.start()
            database.stop()
