"""Settings: everything an operator may set, read once at start and passed down.

`from_environ` is the only reader of `os.environ` in this code base. An environment variable is the field's name in
upper case; one that is empty counts as not set. A command line option wins over the environment, which wins over
the default. A value that cannot be used ends the start with a SettingsError: nothing is guessed or cut to fit.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class SettingsError(ValueError):
    """A setting cannot be used. The message names the variable, the value and what is expected."""


class _Unusable(ValueError):
    """Raised by a parser; its text is what was expected."""


Parser = Callable[[str], Any]


def _text(raw: str) -> str:
    return raw


def _path(raw: str) -> Path:
    return Path(raw).expanduser()


def _whole(least: int, most: int) -> Parser:
    def parse(raw: str) -> int:
        # int() alone would also take " 5 ", "1_000" and digits of other scripts.
        if not re.fullmatch(r"[0-9]{1,12}", raw) or not least <= int(raw) <= most:
            raise _Unusable(f"a whole number from {least} to {most}")
        return int(raw)

    return parse


def _database_url(raw: str) -> str:
    """The URL for psycopg 3, whichever of the three usual spellings was given."""
    scheme, separator, rest = raw.partition("://")
    if not separator or scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise _Unusable("a PostgreSQL URL such as postgresql://user:password@host:5432/backhaul")
    _check_url(raw, "a PostgreSQL URL such as postgresql://user:password@host:5432/backhaul")
    return f"postgresql+psycopg://{rest}"


def _redis_url(raw: str) -> str:
    if not raw.startswith(("redis://", "rediss://", "unix://")):
        raise _Unusable("a Redis URL such as redis://host:6379/0")
    _check_url(raw, "a Redis URL such as redis://host:6379/0")
    return raw


def _check_url(raw: str, expected: str) -> None:
    try:
        urlsplit(raw).port  # noqa: B018 - reading it raises on a port that is none
    except ValueError as error:
        raise _Unusable(expected) from error


def _log_level(raw: str) -> str:
    if raw.upper() not in LOG_LEVELS:
        raise _Unusable("one of " + ", ".join(LOG_LEVELS))
    return raw.upper()


def _version(raw: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+){0,3}", raw):
        raise _Unusable("a version of one to four numbers, such as 2.10.0")
    return raw


def _cores() -> int:
    return os.cpu_count() or 1


def _setting(
    default: Any, parse: Parser, unit: str, meaning: str, *, shown: str | None = None, secret: bool = False
) -> Any:
    """One field. `shown` replaces the default in the table; a secret is kept out of messages and of repr()."""
    given: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    metadata = {"parse": parse, "unit": unit, "meaning": meaning, "shown": shown, "secret": secret}
    return field(**given, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """What this process runs with. Each field states its default, how it is read, its unit and its meaning."""

    database_url: str | None = _setting(
        None,
        _database_url,
        "URL",
        "your PostgreSQL; unset, `backhaul run` starts an embedded one in the data directory",
        shown="embedded",
        secret=True,
    )
    redis_url: str | None = _setting(
        None,
        _redis_url,
        "URL",
        "a Redis whose state /readyz tells; nothing else uses it yet",
        shown="none",
        secret=True,
    )
    data_dir: Path = _setting(
        Path(".backhaul"), _path, "folder", "where the embedded database, the keys and the logs are kept"
    )
    signing_keys: Path | None = _setting(
        None, _path, "folder", "the keys that sign access tokens", shown="`<DATA_DIR>/keys`"
    )
    host: str = _setting("127.0.0.1", _text, "address", "the address to listen on")
    port: int = _setting(8080, _whole(0, 65535), "port", "the port to listen on; 0 picks a free one")
    issuer: str = _setting("backhaul", _text, "text", "the issuer named in access tokens; one name per installation")
    access_token_s: int = _setting(900, _whole(30, 86_400), "seconds", "how long an access token is good for")
    enrolment_code_s: int = _setting(
        900, _whole(60, 604_800), "seconds", "how long a code for enrolling a device is good for"
    )
    tombstone_days: int = _setting(
        180, _whole(1, 3_650), "days", "how long deletions are kept; a device away for longer starts afresh"
    )
    push_slots: int = _setting(
        _cores, _whole(1, 1_024), "pushes", "pushes merged at once in one process; the rest queue", shown="CPU cores"
    )
    waiters: int = _setting(
        48, _whole(0, 10_000), "requests", "long polls and streams held open at once in one process"
    )
    threads: int = _setting(64, _whole(1, 1_024), "threads", "request threads in one process; more than WAITERS")
    pool_size: int = _setting(8, _whole(1, 1_000), "connections", "database connections kept by one process")
    statement_timeout_ms: int = _setting(
        15_000, _whole(100, 3_600_000), "milliseconds", "how long one SQL statement may take"
    )
    lock_timeout_ms: int = _setting(
        5_000, _whole(10, 3_600_000), "milliseconds", "how long one SQL statement may wait for a lock"
    )
    min_app_version: str = _setting(
        "", _version, "version", "apps older than this are asked to upgrade (426) when they pull", shown="any"
    )
    log_level: str = _setting(
        "INFO", _log_level, "level", "the least severe event that is logged: " + ", ".join(LOG_LEVELS)
    )

    @property
    def keys_dir(self) -> Path:
        """The folder with the signing keys: SIGNING_KEYS, else `keys` in the data directory."""
        return self.signing_keys or self.data_dir / "keys"


def from_environ(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """The settings that these variables give, `os.environ` unless told otherwise.

    overrides: values from the command line by field name; None means that the option was not given.
    Raises SettingsError on the first value that cannot be used, and TypeError on a name that is no setting.
    """
    variables = os.environ if environ is None else environ
    fields = {one.name: one for one in dataclasses.fields(Settings)}
    if unknown := sorted(overrides.keys() - fields.keys()):
        raise TypeError(f"no such setting: {', '.join(unknown)}")

    values = {}
    for name, one in fields.items():
        given = overrides.get(name)
        raw = variables.get(name.upper(), "") if given is None else str(given)
        if raw:
            values[name] = _parsed(one, raw)
    settings = Settings(**values)
    _check_together(settings)
    return settings


def count_together(folder: Path) -> None:
    """Let the processes that are forked from this one add up their metrics, in files in `folder`, emptied first.

    prometheus_client takes that from the environment when it is imported, so call this before the app is.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def _parsed(one: dataclasses.Field[Any], raw: str) -> Any:
    try:
        return one.metadata["parse"](raw)
    except _Unusable as error:
        # A database URL holds a password, and this message ends in a log.
        shown = "its value" if one.metadata["secret"] else repr(raw)
        raise SettingsError(f"{one.name.upper()}: {shown} cannot be used, expected {error}") from error


def _check_together(settings: Settings) -> None:
    if settings.waiters >= settings.threads:
        raise SettingsError(
            f"WAITERS: {settings.waiters} cannot be used, expected less than THREADS ({settings.threads}): "
            "each waiting request holds a thread, and pushes need some too"
        )
    if settings.lock_timeout_ms >= settings.statement_timeout_ms:
        raise SettingsError(
            f"LOCK_TIMEOUT_MS: {settings.lock_timeout_ms} cannot be used, expected less than "
            f"STATEMENT_TIMEOUT_MS ({settings.statement_timeout_ms}), or it never fires"
        )


def settings_table() -> str:
    """Every setting as a Markdown table: variable, default, unit, meaning."""
    rows = ["| variable | default | unit | meaning |", "|---|---|---|---|"]
    for one in dataclasses.fields(Settings):
        default = one.metadata["shown"] or f"`{one.default}`"
        rows.append(f"| `{one.name.upper()}` | {default} | {one.metadata['unit']} | {one.metadata['meaning']} |")
    return "\n".join(rows)
