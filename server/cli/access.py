"""`backhaul client add`, `token` and `enrol`: letting somebody in, for whoever has the server's keys and database."""

from __future__ import annotations

import argparse
import re
import sys
import time

from server.cli.options import OPERATOR, Subparsers, add_command, desk, fail, settings_of

SYSTEMS = ("erp", "wms", "crm", "vendor")
OFFICE_ROLES = ("dispatcher", "inventory_controller", "reviewer", "auditor", "admin")
ROLES = (*OFFICE_ROLES, "integration")


def add(subparsers: Subparsers) -> None:
    """Add `client`, `token` and `enrol`."""
    _add_client(subparsers)
    parser = add_command(
        subparsers,
        "token",
        token,
        summary="print an access token, good for 15 minutes, and nothing else",
        details="For a look with curl and for scripts; it is signed with the keys in the data directory.",
        examples="  backhaul token --role reviewer --subject vera\n"
        "  backhaul token --role integration --subject night-run --system erp",
    )
    parser.add_argument("--role", required=True, choices=ROLES, help="what its bearer may do")
    parser.add_argument("--subject", required=True, metavar="NAME", help="whom the history names, such as vera")
    parser.add_argument("--scope", action="append", metavar="SCOPE", help="depot:WH-01, again for more (all)")
    parser.add_argument("--system", choices=SYSTEMS, help="whose word it is; for the role integration")

    parser = add_command(
        subparsers,
        "enrol",
        enrol,
        summary="print a code with which a technician's device joins, once, within 15 minutes",
        examples="  backhaul enrol --technician T-101\n  backhaul device join http://127.0.0.1:8080 THE-CODE",
    )
    parser.add_argument("--technician", required=True, metavar="ID", help="the technician whose device it will be")


def _add_client(subparsers: Subparsers) -> None:
    group = subparsers.add_parser("client", help="clients: programs of other systems that call the API")
    parser = add_command(
        group.add_subparsers(dest="action", required=True, metavar="ACTION"),
        "add",
        add_client,
        summary="make a client and print its id and secret, once",
        examples="  backhaul client add 'ERP bridge' --system erp",
    )
    parser.add_argument("name", help="what people call it")
    parser.add_argument("--system", required=True, choices=SYSTEMS, help="whose word its writes are")
    parser.add_argument("--scope", action="append", metavar="SCOPE", help="depot:WH-01, again for more (all)")


def token(args: argparse.Namespace) -> int:
    """Print an access token."""
    from server.services.keys import KeyRing
    from server.services.tokens import issue_access

    if (args.role == "integration") != (args.system is not None):
        return fail("--system goes with the role integration, and with no other.", status=2)
    kind = "system" if args.role == "integration" else "user"
    subject = args.subject if args.subject.startswith(f"{kind}:") else f"{kind}:{args.subject}"
    if not re.fullmatch(r"[a-z]+:[A-Za-z0-9_.@-]{1,64}", subject):
        return fail("--subject is a name of letters, digits and _ . @ -, at most 64 of them.", status=2)
    settings = settings_of(args)
    print(
        issue_access(
            KeyRing.open(settings.keys_dir),
            subject=subject,
            role=args.role,
            scopes=args.scope or ["*"],
            system=args.system,
            now=time.time(),
            lifetime_s=settings.access_token_s,
            issuer=settings.issuer,
        )
    )
    return 0


def add_client(args: argparse.Namespace) -> int:
    """Make a client and print how it signs in."""
    from server.services.devices import create_client

    with desk(settings_of(args)) as open_desk:
        client_id, secret = create_client(
            open_desk, name=args.name, system=args.system, scopes=tuple(args.scope or ["*"]), by=OPERATOR
        )
    print(f"client_id      {client_id}\nclient_secret  {secret}")
    print("The secret is shown this once; the server keeps only its hash.", file=sys.stderr)
    return 0


def enrol(args: argparse.Namespace) -> int:
    """Print an enrolment code."""
    from server.services.devices import create_code
    from sync.store import Actor

    operator = Actor("user", OPERATOR, "admin", "platform", ("*",))
    with desk(settings_of(args)) as open_desk:
        code, _ = create_code(open_desk, operator, args.technician, note="backhaul enrol")
    print(code)
    return 0
