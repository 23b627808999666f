"""The READMEs tell the truth: their tables follow the code, and the example runs against a live server.

`python -m tests.test_docs` writes the tables anew.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.settings import settings_table
from sync import errors
from sync.entities import ENTITY_TYPES
from sync.errors import Conflicting, MutationRefused, Refused, SyncError
from sync.policy import POLICIES
from tests.support.commands import Running, backhaul, short_folder

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BRANCHES = {SyncError, Refused, Conflicting, MutationRefused}  # raised only as one of their kinds


def entities_table() -> str:
    """Every synced entity as a Markdown table."""
    rows = ["| entity | in URLs | what it is | who gets it | deleted here, edited there |", "|---|---|---|---|---|"]
    for one in ENTITY_TYPES.values():
        scopes = " ".join(f"`{prefix}:`" for prefix in dict.fromkeys(s.template.partition(":")[0] for s in one.scopes))
        kind = "; a fact" if one.fact else ""
        rows.append(f"| `{one.name}` | `/v1/{one.plural}` | {one.doc.rstrip('.')}{kind} | {scopes} | {one.on_delete} |")
    return "\n".join(rows)


def errors_table() -> str:
    """Every error that a call can answer with as a Markdown table."""
    rows = ["| code | status | again? | what it says |", "|---|---|---|---|"]
    for one in sorted(_errors(SyncError), key=lambda one: (one.status, one.code)):
        says = " ".join((one.__doc__ or "").split())
        rows.append(f"| `{one.code}` | {one.status} | {'yes' if one.retryable else 'no'} | {says} |")
    return "\n".join(rows)


def _errors(branch: type[SyncError]) -> Iterator[type[SyncError]]:
    if branch not in BRANCHES and branch.__module__ == errors.__name__:
        yield branch
    for kind in branch.__subclasses__():
        yield from _errors(kind)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "entities": entities_table,
    "errors": errors_table,
}


def table_in(text: str, name: str) -> re.Match[str] | None:
    return re.search(rf"(?<=<!-- begin {name} -->\n).*?(?=<!-- end {name} -->)", text, re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_the_code_says(name: str) -> None:
    found = table_in(README.read_text(), name)

    assert found, f"README.md has no table {name}"
    assert found[0] == TABLES[name]() + "\n", "run `python -m tests.test_docs`"


@pytest.mark.parametrize("readme", ["README.md", "sync/README.md", "server/README.md", "client_sdk/README.md"])
def test_links_and_paths_lead_somewhere(readme: str) -> None:
    place = ROOT / readme
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", place.read_text())

    assert [target for target in targets if not (place.parent / target).exists()] == []


def test_every_policy_is_explained() -> None:
    explained = (ROOT / "sync" / "README.md").read_text()

    assert [name for name in POLICIES if f"`{name}`" not in explained] == []


def test_the_sdk_example_runs_against_a_live_server(monkeypatch: pytest.MonkeyPatch) -> None:
    source = re.search(r"(?<=^```python\n).*?(?=^```$)", README.read_text(), re.DOTALL | re.MULTILINE)
    assert source, "README.md has no example"

    with short_folder() as folder, running_server(folder) as (url, codes):
        monkeypatch.chdir(folder)
        example, replaced = re.subn(
            r"^URL, CODES = .*$", f"URL, CODES = {url!r}, {codes!r}", source[0], flags=re.MULTILINE
        )
        names: dict[str, Any] = {}
        exec(compile(example, "README.md", "exec"), names)
        names["phone"].close()
        names["tablet"].close()

    assert replaced == 1


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """`backhaul run` with a few records: its URL, and two codes for devices of T-101."""
    where = ("--data-dir", str(folder / "d"))
    running = Running(folder)
    try:
        url = running.wait_for(r"^ready (\S+)$")[1]
        loaded = backhaul("demo-data", "--technicians", "1", "--parts", "30", "--work-orders", "5", *where)
        assert loaded.returncode == 0, loaded.stderr
        yield url, [backhaul("enrol", "--technician", "T-101", *where).stdout.strip() for _ in range(2)]
        running.stop(signal.SIGTERM)
    finally:
        running.clean_up()


def write_tables() -> None:
    text = README.read_text()
    for name, make in TABLES.items():
        found = table_in(text, name)
        assert found, f"README.md has no table {name}"
        text = text[: found.start()] + make() + "\n" + text[found.end() :]
    README.write_text(text)


if __name__ == "__main__":
    write_tables()
