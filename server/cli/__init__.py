"""The server's commands, as the console script `backhaul` loads them from the entry-point group `backhaul.commands`.

A module here is one group of commands. It imports little at its head and what it needs inside its commands, because
`backhaul device`, which shares the console script, must not pay for the server's imports.
"""

from __future__ import annotations

from server.cli import access, data, restore, run, serve, upkeep
from server.cli.options import Subparsers


def add_commands(subparsers: Subparsers) -> None:
    """Add every command of the server to the console script's parser."""
    for group in (run, serve, data, access, restore, upkeep):
        group.add(subparsers)
