"""An installation without the extra `server`: what a device has, which is httpx, what httpx needs, and our own code."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = "import sys; sys.path[:0] = {paths!r}; from client_sdk.cli import main; sys.exit(main({arguments!r}))"


def needed(name: str) -> set[str]:
    """A distribution and all that it needs without extras, by name."""
    found, ahead = set[str](), [name]
    while ahead:
        one = ahead.pop()
        if one in found:
            continue
        found.add(one)
        for requirement in distribution(one).requires or ():
            # A marker other than an extra's may not hold here; what is not installed then is not needed.
            if "extra ==" not in requirement and "python_version" not in requirement:
                ahead.append(re.match(r"[A-Za-z0-9._-]+", requirement)[0])  # type: ignore[index]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A search path with nothing else on it than a bare installation brings."""
    site = tmp_path_factory.mktemp("site")
    for name in {*needed("httpx"), "backhaul", "typing_extensions"}:
        for file in distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.startswith("__editable__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    return [str(site), str(ROOT)]


def backhaul(bare: list[str], *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # -S and -E: no site-packages, no PYTHONPATH.
    start = START.format(paths=bare, arguments=list(arguments))
    command = [sys.executable, "-S", "-E", "-c", start]
    return subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, timeout=60, check=False)


def test_a_device_needs_nothing_of_the_server(bare: list[str], tmp_path: Path) -> None:
    status = backhaul(bare, "device", "status", "--path", "mine.db", folder=tmp_path)
    flask = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path[:0] = {bare!r}; import flask"],
        env={}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert "Traceback" not in status.stderr, status.stderr
    assert "ModuleNotFoundError" in flask.stderr, "the environment is not as bare as it should be"


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--port", "0"], ["migrate"], ["demo-data"], ["durable"], ["purge"], ["epoch", "rotate"],
        ["token", "--role", "admin", "--subject", "ada"], ["enrol", "--technician", "T-1"],
        ["client", "add", "ERP", "--system", "erp"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_command_of_the_server_says_what_to_install(bare: list[str], tmp_path: Path, command: list[str]) -> None:
    told = backhaul(bare, *command, folder=tmp_path)

    assert told.returncode in (1, 2)
    assert "backhaul[server]" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_reader_that_has_seen_enough_hears_no_complaint(bare: list[str], tmp_path: Path) -> None:
    start = START.format(paths=bare, arguments=["device", "status", "--path", "mine.db"])
    told = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", start],
        cwd=tmp_path, env={}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert told.stdout
    assert told.stderr
    told.stdout.close()

    assert told.stderr.read() == ""
    told.stderr.close()
    assert told.wait(30) == 1
