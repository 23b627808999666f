"""What `backhaul run` starts and how it ends: signals that wait for a safe moment, the API in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from server.cli.serve import serve_forever
from server.settings import Settings

STOP_S = 10  # then the API is killed; its work is in the database or was never acknowledged
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # prctl(2), Linux


class Interruptions:
    """Ctrl-C, SIGTERM and the loss of the terminal, all as KeyboardInterrupt, and never in the middle of `held`."""

    def __init__(self) -> None:
        self._held = False
        self._pending = False

    def listen(self) -> None:
        """From now on. For the main thread."""
        for number in ENDING:
            # nohup had the loss of the terminal ignored, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def ignore(self) -> None:
        """From now on nothing interrupts: what was started is being stopped."""
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def held(self) -> Iterator[None]:
        """An interruption waits until the end of the block; one that came meanwhile wins over an error in it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._pending:
                raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        if not self._held:
            raise KeyboardInterrupt


class ApiProcess:
    """The API, served by gunicorn with one worker, in a process and session of its own; `with` starts and stops it.

    A session of its own, so that Ctrl-C reaches us alone and what we started ends in order.
    """

    def __init__(self, settings: Settings, listener: socket.socket, log_file: Path) -> None:
        """listener: handed over to the API. log_file: gets all that it says."""
        self._settings, self._listener, self.log_file = settings, listener, log_file
        self._pid = 0

    def __enter__(self) -> ApiProcess:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            self._be_the_api(parent)
        self._listener.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_alive():
            return
        os.kill(self._pid, signal.SIGINT)
        if not self._ends_within(STOP_S):
            os.killpg(self._pid, signal.SIGKILL)
            self._ends_within(STOP_S)

    def is_alive(self) -> bool:
        """Whether it still runs."""
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                ended, _ = os.waitpid(self._pid, os.WNOHANG)
                if ended == 0:
                    return True
            self._pid = 0
        return False

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])

    def _ends_within(self, seconds: float) -> bool:
        return wait_until(lambda: not self.is_alive(), seconds)

    def _be_the_api(self, parent: int) -> None:
        """Never returns: nothing of what the parent has begun may be ended here as well."""
        status = 1
        try:
            os.setsid()
            for number in ENDING:
                signal.signal(number, signal.SIG_DFL)
            _end_with(parent)
            output = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(output, sys.stdout.fileno())
            os.dup2(output, sys.stderr.fileno())
            serve_forever(self._settings, self._listener, workers=1)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Workers come by here too. exit() would wait for requests that may still be running.
            os._exit(status)


def _end_with(parent: int) -> None:
    """Stop when `parent` is killed: the next run could not have the port otherwise. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it was quicker
            os._exit(1)


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether `holds` came true within that time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
