"""The commands, as an operator types them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jwt
import pytest

from server.store.migrate import upgrade
from tests.support.commands import BACKHAUL, Running, backhaul, environment, short_folder

COMMANDS = (
    "run", "serve", "migrate", "demo-data", "client add", "token", "enrol", "durable", "epoch rotate", "purge",
)  # fmt: skip
SMALL = ("--technicians", "2", "--parts", "30", "--work-orders", "4", "--depots", "1")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = backhaul(*command.split(), "--help")

    assert result.returncode == 0, result.stderr
    assert "usage: " in result.stdout
    assert "examples:" in result.stdout


def test_serve_without_a_database_says_what_to_set() -> None:
    result = backhaul("serve")

    assert result.returncode == 2
    assert "DATABASE_URL" in result.stderr


def test_a_setting_that_cannot_be_used_is_told_in_a_line() -> None:
    result = backhaul("migrate", DATABASE_URL="mysql://here/there")

    assert result.returncode == 2
    assert result.stderr.startswith("backhaul: DATABASE_URL")
    assert "here" not in result.stderr


def test_a_port_in_use_is_told_before_anything_is_started(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = backhaul("run", "--port", str(taken.getsockname()[1]), "--data-dir", str(data_dir))

    assert result.returncode == 2
    assert "--port 0" in result.stderr
    assert not (data_dir / "pg").exists()


def test_token_prints_the_token_alone(data_dir: Path) -> None:
    result = backhaul("token", "--role", "reviewer", "--subject", "vera", "--data-dir", str(data_dir))

    claims = jwt.decode(result.stdout.strip(), options={"verify_signature": False})
    assert result.stdout.count("\n") == 1
    assert (claims["sub"], claims["role"], claims["scopes"]) == ("user:vera", "reviewer", ["*"])
    assert claims["exp"] - claims["iat"] == 900


def test_an_integration_needs_a_system_and_nobody_else_has_one(data_dir: Path) -> None:
    for role, more in (("integration", ()), ("reviewer", ("--system", "erp"))):
        result = backhaul("token", "--role", role, "--subject", "x", *more, "--data-dir", str(data_dir))

        assert result.returncode == 2
        assert "--system" in result.stderr


def test_serve_answers_from_several_processes_and_ends_on_sigterm(data_dir: Path, prepared_url: str) -> None:
    arguments = [*BACKHAUL, "serve", "--port", "0", "--workers", "2"]
    variables = environment(DATABASE_URL=prepared_url, DATA_DIR=str(data_dir))
    with (data_dir / "log").open("w") as log:
        server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True, env=variables)
    try:
        assert server.stdout
        found = re.match(r"listening on (http://127\.0\.0\.1:\d+) with 2 processes\n", server.stdout.readline())
        assert found, (data_dir / "log").read_text()
        # The socket listens already: these wait until the processes are there, and go to whichever is free.
        each_anew = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=found[1], timeout=30, limits=each_anew) as http, ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: http.get("/readyz"), range(64)))
            scrapes = [http.get("/metrics").text for _ in range(8)]
        server.terminate()
        status = server.wait(timeout=30)
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()
    lines = [json.loads(line) for line in (data_dir / "log").read_text().splitlines()]

    assert {answer.status_code for answer in answers} == {200}
    counted = 'backhaul_requests_total{endpoint="/readyz",method="GET",status="200"} 64.0'
    assert all(counted in scrape for scrape in scrapes), "whichever process is asked answers for both"
    assert len({line["pid"] for line in lines if line.get("event") == "request_answered"}) == 2
    assert status == 0


# -- run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(data_dir: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(data_dir, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.clean_up()


def processes_of(data_dir: Path) -> list[str]:
    """Commands of living processes that name this folder or work in it (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            inside = str((process / "cwd").readlink()).startswith(str(data_dir))
            if (inside or str(data_dir) in command) and (process / "stat").read_text().rpartition(")")[2].split()[
                0
            ] != "Z":
                found.append(command)
        except OSError:
            continue
    return found


def test_run_with_the_demo_tells_its_day_and_leaves_nothing_behind(
    data_dir: Path, start: Callable[..., Running]
) -> None:
    running = start("--demo")
    url = running.wait_for(r"^ready (http://127\.0\.0\.1:\d+)$")[1]
    running.wait_for(r"^Running at .* Ctrl-C stops it\.$")
    told = running.output.read_text()
    by_rule, _, by_a_person = told.partition("a person has to decide;")

    assert "The demo stopped here" not in told
    assert re.search(r"meter_reading, by the policy largest\n +stood: 810.0\n +sent: 812.5\n +now: 812.5\n", by_rule)
    assert "description, by the policy merge3" in by_rule
    assert "description, by the policy merge3" in by_a_person
    assert "status, by the policy state_machine" in by_a_person
    assert len(re.findall(r"^  c_[a-z2-7]{26}  WO-\d+-\d ", told, re.MULTILINE)) == 2
    token = backhaul(
        "token", "--role", "reviewer", "--subject", "vera", "--data-dir", str(data_dir / "d")
    ).stdout.strip()
    pages = re.findall(rf"{url}/v1/[^\s']+", told)
    answers = [httpx.get(page, headers={"Authorization": f"Bearer {token}"}) for page in pages]
    assert [answer.status_code for answer in answers] == [200] * 4
    logged = [json.loads(line) for line in (data_dir / "d" / "logs" / "server.log").read_text().splitlines()]
    assert "request_answered" in {line.get("event") for line in logged}
    assert [line for line in logged if line["level"] in ("ERROR", "CRITICAL")] == []

    assert running.stop(signal.SIGINT) == 0
    assert processes_of(data_dir) == []


def test_other_commands_join_the_database_of_a_running_server(data_dir: Path, start: Callable[..., Running]) -> None:
    running = start()
    url = running.wait_for(r"^ready (\S+)$")[1]
    folder = ("--data-dir", str(data_dir / "d"))

    loaded = backhaul(
        "demo-data", "--technicians", "2", "--parts", "30", "--work-orders", "4", "--depots", "1", *folder
    )
    again = backhaul("demo-data", "--technicians", "2", "--parts", "30", "--work-orders", "4", "--depots", "1", *folder)
    code = backhaul("enrol", "--technician", "T-101", *folder).stdout.strip()
    body = {"code": code, "name": "phone", "platform": "test", "app_version": "1.0"}
    device = httpx.post(f"{url}/v1/devices", json=body)
    client = backhaul("client", "add", "ERP bridge", "--system", "erp", *folder)
    named = dict(line.split() for line in client.stdout.splitlines())
    token = httpx.post(f"{url}/v1/token", json={"grant_type": "client_credentials", **named})

    assert loaded.returncode == 0, loaded.stderr
    assert " records loaded, 0 were there before" in loaded.stdout
    assert "Demo company: 0 records loaded" in again.stdout
    assert device.status_code == 201
    assert token.status_code == 200, json.dumps(token.json())
    assert running.stop(signal.SIGTERM) == 0
    assert processes_of(data_dir) == []


@pytest.fixture
def prepared_url(make_database: Callable[[], str]) -> str:
    url = make_database()
    upgrade(url)
    return url


def test_a_technician_nobody_knows_gets_no_code(data_dir: Path, prepared_url: str) -> None:
    result = backhaul("enrol", "--technician", "T-999", DATABASE_URL=prepared_url, DATA_DIR=str(data_dir))

    assert result.returncode == 1
    assert "no such technician" in result.stderr


def test_a_restore_rotates_the_feed_epoch_and_a_backup_moves_what_is_durable(data_dir: Path, prepared_url: str) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return backhaul(*arguments, DATABASE_URL=prepared_url, DATA_DIR=str(data_dir))

    command("demo-data", *SMALL)
    position = command("durable").stdout.strip()
    durable = command("durable", "--as-of", position)
    ahead = command("durable", "--as-of", "999999999")
    first, second = command("epoch", "rotate"), command("epoch", "rotate")

    assert int(position) > 0
    assert durable.returncode == 0, durable.stderr
    assert ahead.returncode == 1
    epochs = [int(re.search(r"feed epoch (\d+)", one.stdout)[1]) for one in (first, second)]  # type: ignore[index]
    assert epochs[1] > epochs[0] > 0


def test_the_nightly_purge_says_what_it_dropped(data_dir: Path, prepared_url: str) -> None:
    def purge(*arguments: str) -> subprocess.CompletedProcess[str]:
        return backhaul("purge", *arguments, DATABASE_URL=prepared_url, DATA_DIR=str(data_dir))

    usual, refused = purge(), purge("--days", "0")

    assert usual.returncode == 0, usual.stderr
    assert "Older than 180 days: 0 feed rows, 0 tombstones and 0 memberships" in usual.stdout
    assert refused.returncode == 2
