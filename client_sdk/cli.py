"""The console script `backhaul`.

It owns `backhaul device …`, a technician's device on the command line, and takes every other command from the packages
that offer some under the entry-point group `backhaul.commands`. A command is a function of the parsed arguments that
gives the exit status: 0, 1 if it could not do its work, 2 if it was asked wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from client_sdk.client import FieldClient
from sync.entities import ENTITY_TYPES
from sync.entity import EntityType, Field
from sync.errors import SyncError

GROUP = "backhaul.commands"
DEFAULT_PATH = Path("device.db")
TRIES = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="backhaul", description="Offline-first sync for field technicians.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_device(commands)
    # What a device runs must not pay for what the server imports.
    missing = [] if arguments[:1] == ["device"] else _add_others(commands)
    if missing and arguments and not arguments[0].startswith("-") and arguments[0] not in commands.choices:
        return _fail(f"`backhaul {arguments[0]}` needs {missing[0]}. Install it: pip install 'backhaul[server]'", 2)
    if missing:
        parser.epilog = f"More commands come with {missing[0]}: pip install 'backhaul[server]'"
    args = parser.parse_args(arguments)
    if not hasattr(args, "run"):
        parser.print_help()
        return 2
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has had enough. Python would complain once more when it flushes at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _add_others(commands: Any) -> list[str]:
    """Let other packages add their commands; what those are called that cannot, because something is not installed."""
    missing = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            add = entry.load()
            add(commands)
        except ImportError as error:
            missing.append(f"the {entry.name} part ({error.name or error} is missing)")
    return missing


def _fail(message: str, status: int = 1) -> int:
    print(f"backhaul: {message}", file=sys.stderr)
    return status


# -- a device -----------------------------------------------------------------------------------------------------


def _add_device(commands: Any) -> None:
    device = commands.add_parser("device", help="a technician's device", description="A technician's device.")
    actions = device.add_subparsers(title="commands", metavar="COMMAND", required=True)
    join = _action(actions, "join", _join, "enrol this device with a code from the office")
    join.add_argument("url", metavar="URL", help="address of the server, such as http://127.0.0.1:8080")
    join.add_argument("code", metavar="CODE", help="the enrolment code")
    join.add_argument("--name", default="", help="how the office sees this device (default: the machine's name)")
    listing = _action(actions, "list", _list, "show records, unsent work included")
    listing.add_argument("entity", metavar="ENTITY", help=", ".join(sorted(ENTITY_TYPES)))
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    setting = _action(actions, "set", _set, "change a record, or create it if it is not there")
    setting.add_argument("entity", metavar="ENTITY")
    setting.add_argument("id", metavar="ID")
    setting.add_argument("values", metavar="field=value", nargs="+", help='also field={"$inc":"-2"}; field= clears')
    syncing = _action(actions, "sync", _sync, "send what was changed here and fetch what is new")
    syncing.add_argument(
        "--tries", type=int, default=TRIES, help="attempts if the server cannot be reached (%(default)s)"
    )
    _action(actions, "status", _status, "tell how this device stands")


def _action(actions: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.add_argument(
        "--path", type=Path, default=DEFAULT_PATH, help="the device's database, made if missing (%(default)s)"
    )
    parser.set_defaults(run=lambda args: _told(run, args))
    return parser


def _told(run: Any, args: argparse.Namespace) -> int:
    """`run` on an open device, with errors told in a line."""
    try:
        with FieldClient.open(args.path) as client:
            run(client, args)
    except SyncError as error:
        return _fail(error.detail)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        return _fail(str(error), 2)
    return 0


def _join(client: FieldClient, args: argparse.Namespace) -> None:
    technician = client.join(args.url, args.code, args.name)
    print(f"This device belongs to technician {technician} now. Its first sync fetches the work.")


def _list(client: FieldClient, args: argparse.Namespace) -> None:
    records = client.replica.shown_all(_entity(args.entity).name)
    for id, data in records.items():
        if args.json:
            print(json.dumps({"id": id, **data}, ensure_ascii=False))
        else:
            print(
                id,
                *(f"{name}={_shown(value)}" for name, value in data.items() if value not in (None, [], "")),
                sep="  ",
            )
    if not args.json:
        print(f"{len(records)} {args.entity.replace('_', ' ')} records on this device")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _set(client: FieldClient, args: argparse.Namespace) -> None:
    entity = _entity(args.entity)
    values = dict(_assignment(entity, text) for text in args.values)
    collection = client.collection(entity.name)
    if collection.values(args.id) is None:
        collection.create(args.id, **values)
        print(f"Created {args.entity} {args.id} on this device.")
    else:
        collection.update(args.id, **values)
        print(f"Saved {args.entity} {args.id} on this device.")


def _sync(client: FieldClient, args: argparse.Namespace) -> None:
    report = client.sync(args.tries)
    for entry, result in report.answered:
        why = result.problem.detail if result.problem else "; ".join(decision.why for decision in result.decisions)
        print(f"{result.status:8}  {entry.key.entity} {entry.key.id}{': ' + why if why else ''}")
    print(f"Sent {len(report.answered)}, fetched {report.pulled}. {client.status()}")


def _status(client: FieldClient, args: argparse.Namespace) -> None:
    print(client.status())
    for trouble in [*client.parked(), *client.rejected()]:
        print(f"{trouble.status:8}  {trouble.key.entity} {trouble.key.id}: {trouble.why}")


def _entity(name: str) -> EntityType:
    if name not in ENTITY_TYPES:
        raise ValueError(f"there is no entity {name}; there are {', '.join(sorted(ENTITY_TYPES))}")
    return ENTITY_TYPES[name]


def _assignment(entity: EntityType, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text}: write it as field=value")
    if name not in entity.fields:
        raise ValueError(f"a {entity.name} has no field {name}; it has {', '.join(entity.fields)}")
    return name, _value(entity.fields[name], value)


def _value(field: Field, text: str) -> Any:
    """What somebody typed, as a value of the field."""
    if text == "":
        return None
    if text.startswith(("{", "[")) and field.type not in ("text", "choice"):
        return json.loads(text)
    if field.type == "boolean":
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)
    if field.type == "integer" and text.lstrip("-").isdigit():
        return int(text)
    if field.type in ("set", "log"):
        return text.split(",") if field.type == "set" else [text]
    return text
