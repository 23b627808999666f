"""The embedded PostgreSQL, started for real in a short temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from server.embedded import MAX_SOCKET_PATH, EmbeddedError, EmbeddedPostgres
from tests.support.postgres import plain_url


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """One cluster for these tests: what they ask is how it starts and stops."""
    yield from temporary_folder()


@pytest.fixture
def empty_dir() -> Iterator[Path]:
    yield from temporary_folder()


def temporary_folder() -> Iterator[Path]:
    # Not tmp_path: its names are too long for a socket. As mkdtemp makes it, mode 0700, nobody else may pass.
    folder = Path(tempfile.mkdtemp(prefix="bh-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(data_dir)
    postgres.start()
    yield postgres
    postgres.stop()
    assert not postgres.is_running()


def query(url: str, statement: str) -> object:
    with psycopg.connect(plain_url(url), connect_timeout=5) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def postmaster(server: EmbeddedPostgres) -> int:
    return int((server.folder / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0])


def kill_postmaster(server: EmbeddedPostgres) -> None:
    os.kill(postmaster(server), signal.SIGKILL)


def test_it_starts_and_answers_in_utf8_with_durable_commits(server: EmbeddedPostgres) -> None:
    url = server.url()

    assert url.startswith("postgresql+psycopg://")
    assert query(url, "SELECT current_database()") == "backhaul"
    assert query(url, "SHOW server_encoding") == "UTF8"
    assert query(url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
    assert query(url, "SHOW fsync") == "on"
    assert query(url, "SHOW synchronous_commit") == "on"


def test_it_listens_on_the_socket_only(server: EmbeddedPostgres) -> None:
    assert query(server.url(), "SHOW listen_addresses") == ""


def test_a_wrong_password_is_refused(server: EmbeddedPostgres) -> None:
    password = (server.folder / "password").read_text()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(server.url().replace(password, "guess"), "SELECT 1")


def test_after_kill_9_it_starts_again_in_the_same_process_with_every_committed_row(server: EmbeddedPostgres) -> None:
    query(server.url(), "CREATE TABLE kept AS SELECT 42 AS answer")

    kill_postmaster(server)
    url = server.start()

    assert query(url, "SELECT answer FROM kept") == 42


def test_a_transaction_open_during_kill_9_does_not_hinder_the_restart(server: EmbeddedPostgres) -> None:
    busy = psycopg.connect(plain_url(server.url()))
    busy.execute("CREATE TABLE lost AS SELECT 1")

    kill_postmaster(server)
    url = server.start()
    busy.close()

    assert query(url, "SELECT to_regclass('lost')") is None


def test_a_pid_file_that_names_a_stranger_is_known_to_be_stale(server: EmbeddedPostgres) -> None:
    pid_file = server.folder / "cluster" / "postmaster.pid"
    left_behind = pid_file.read_text()
    server.stop()
    # As after the restart of a machine: the number belongs to another process now, one of the same OS user.
    owner = server.folder.stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "60"], **as_owner) as stranger:  # type: ignore[call-overload]
        pid_file.write_text(f"{stranger.pid}\n" + left_behind.split("\n", 1)[1])
        os.chown(pid_file, owner.st_uid, owner.st_gid)

        url = server.start()
        stranger.kill()

    assert query(url, "SELECT 1") == 1


def test_whoever_leaves_last_stops_it(server: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(server.folder.parent)
    url = second.start()
    first_postmaster = postmaster(server)

    server.stop()

    assert query(url, "SELECT 1") == 1
    assert postmaster(second) == first_postmaster
    second.stop()
    assert not second.is_running()


def test_another_process_joins_and_leaves_it_running(server: EmbeddedPostgres) -> None:
    script = (
        "import sys; from server.embedded import EmbeddedPostgres\n"
        "with EmbeddedPostgres(sys.argv[1]) as url: print(url)"
    )

    joined = subprocess.run(
        [sys.executable, "-c", script, str(server.folder.parent)], capture_output=True, text=True, check=True
    )

    assert joined.stdout.strip() == server.url()
    assert query(server.url(), "SELECT 1") == 1


def test_a_user_that_was_killed_does_not_keep_it_running(server: EmbeddedPostgres) -> None:
    script = (
        "import sys, time; from server.embedded import EmbeddedPostgres\n"
        "EmbeddedPostgres(sys.argv[1]).start(); print('joined', flush=True); time.sleep(60)"
    )
    folder = str(server.folder.parent)
    with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout
        assert user.stdout.readline() == "joined\n"
        user.kill()

    server.stop()

    assert not server.is_running()


def test_nobody_else_can_read_its_files(server: EmbeddedPostgres) -> None:
    assert stat.S_IMODE((server.folder / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    others = [path for path in server.folder.rglob("*") if path.lstat().st_mode & 0o007 and not path.is_symlink()]
    assert others == []


def test_a_first_start_that_broke_off_is_begun_again(empty_dir: Path) -> None:
    (empty_dir / "pg" / "cluster.new" / "base").mkdir(parents=True)
    (empty_dir / "pg" / "password").write_text("from the first attempt")

    with EmbeddedPostgres(empty_dir) as url:
        assert query(url, "SELECT 1") == 1


def test_options_replace_the_usual_ones_whatever_they_are_made_of(data_dir: Path) -> None:
    name = "it's in $HOME"

    with EmbeddedPostgres(data_dir, options={"cluster_name": name, "fsync": "off"}) as url:
        assert query(url, "SHOW cluster_name") == name
        assert query(url, "SHOW fsync") == "off"


def test_a_path_too_long_for_a_socket_is_refused_with_advice(empty_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match=rf"ends at {MAX_SOCKET_PATH}.*shorter --data-dir"):
        EmbeddedPostgres(empty_dir / ("x" * 100)).start()

    assert list(empty_dir.iterdir()) == []


def test_a_cluster_of_another_version_is_refused_with_advice(empty_dir: Path) -> None:
    (empty_dir / "pg" / "cluster").mkdir(parents=True)
    (empty_dir / "pg" / "cluster" / "PG_VERSION").write_text("9\n")

    with pytest.raises(EmbeddedError, match="written by PostgreSQL 9"):
        EmbeddedPostgres(empty_dir).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the OS user")
def test_as_root_it_runs_as_another_user_who_may_pass_through_the_folders_above_but_not_list_them(
    empty_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = empty_dir / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "data")

    with server as url:
        assert query(url, "SELECT 1") == 1
        assert Path(f"/proc/{postmaster(server)}").stat().st_uid == pwd.getpwnam("backhaul").pw_uid
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701
    assert f"{closed}: added o+x" in caplog.text
