"""Settings: what is read, what wins, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from server.settings import Settings, SettingsError, from_environ, settings_table


def test_an_empty_environment_gives_the_defaults() -> None:
    assert from_environ({}) == Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    assert from_environ({"DATABASE_URL": "", "PORT": ""}) == Settings()


def test_a_command_line_option_wins_over_the_environment() -> None:
    settings = from_environ({"PORT": "9000", "HOST": "0.0.0.0"}, port=0, host=None)

    assert (settings.port, settings.host) == (0, "0.0.0.0")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_spelling_of_a_database_url_reaches_psycopg_3(scheme: str) -> None:
    settings = from_environ({"DATABASE_URL": f"{scheme}://u:p@db/backhaul"})

    assert settings.database_url == "postgresql+psycopg://u:p@db/backhaul"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("POOL_SIZE", "1_0"),
        ("ACCESS_TOKEN_S", "15m"),
        ("DATABASE_URL", "mysql://db/backhaul"),
        ("DATABASE_URL", "postgresql://db:port/backhaul"),
        ("REDIS_URL", "localhost:6379"),
        ("LOG_LEVEL", "loud"),
        ("MIN_APP_VERSION", "two"),
        ("WAITERS", "64"),
        ("LOCK_TIMEOUT_MS", "15000"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: .* expected "):
        from_environ({name: value})


def test_no_password_shows_in_a_message_or_in_the_settings_as_text() -> None:
    with pytest.raises(SettingsError) as refused:
        from_environ({"DATABASE_URL": "mysql://u:hunter2@db/backhaul"})

    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(from_environ({"DATABASE_URL": "postgresql://u:hunter2@db/backhaul"}))


def test_signing_keys_lie_in_the_data_directory_unless_named() -> None:
    assert from_environ({"DATA_DIR": "/d"}).keys_dir == Path("/d/keys")
    assert from_environ({"DATA_DIR": "/d", "SIGNING_KEYS": "/k"}).keys_dir == Path("/k")


def test_the_table_names_every_setting() -> None:
    table = settings_table()

    assert all(f"| `{one.name.upper()}` |" in table for one in dataclasses.fields(Settings))
