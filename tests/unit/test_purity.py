"""What may be imported where, as far as import-linter cannot say it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# No clock, no randomness, no I/O. Of these, datetime could read the clock: ruff's TID251 forbids that in sync/.
PURE = set(
    "__future__ abc base64 bisect collections dataclasses datetime decimal enum fractions functools hashlib itertools "
    "json math operator re string struct types typing".split()
)


def imported_packages(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "sync" if node.level else (node.module or "").partition(".")[0]


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_the_check_sees_imports_of_every_form() -> None:
    tree = ast.parse("import os.path\nfrom random import choice\nfrom . import clock\ndef f():\n    import time\n")

    assert set(imported_packages(tree)) == {"os", "random", "sync", "time"}


@pytest.mark.parametrize("path", python_files("sync"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_itself_and_pure_modules_only(path: Path) -> None:
    assert set(imported_packages(parsed(path))) <= PURE | {"sync"}


def test_the_environment_is_read_in_settings_alone() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in python_files("server")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    ]

    assert set(readers) == {"server/settings.py"}
