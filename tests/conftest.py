"""Fixtures for every test, and the closing word on what this machine could not run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.support.postgres import Databases, databases


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """The PostgreSQL server of this test process; pytest-xdist gives each worker its own."""
    with databases() as made:
        yield made


@pytest.fixture(scope="session")
def make_database(postgres: Databases) -> Callable[[], str]:
    """Call it for the SQLAlchemy URL of a new, empty database."""
    return postgres.make_database


@pytest.fixture(scope="session")
def database_url(make_database: Callable[[], str]) -> str:
    """One database for all tests of this process that share it; a test that needs an empty one calls make_database."""
    return make_database()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything has to run (CI=true), a test that could not is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped") and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped and why: a test that did not run must not look like one that passed."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    if not reasons:
        terminalreporter.write_line("This machine could run every test of the suite.")
        return
    terminalreporter.write_line("This machine could not run:")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"  {count} x {reason.removeprefix('Skipped: ')}")
