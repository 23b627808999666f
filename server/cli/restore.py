"""`backhaul durable` and `backhaul epoch rotate`: what the backup job and a restore tell the server."""

from __future__ import annotations

import argparse

from server.cli.options import OPERATOR, Subparsers, add_command, desk, settings_of


def add(subparsers: Subparsers) -> None:
    """Add `durable` and `epoch`."""
    parser = add_command(
        subparsers,
        "durable",
        durable,
        summary="say up to where the oldest backup that may be restored contains the feed",
        details="Devices keep acknowledged work until this position has passed it, so that a restore loses none. "
        "Without --as-of: print the present position.",
        examples="  SEQ=$(backhaul durable) && pg_dump … && backhaul durable --as-of $SEQ   # if one backup is kept",
    )
    parser.add_argument("--as-of", type=int, metavar="SEQ", help="the position before that backup was begun")

    group = subparsers.add_parser("epoch", help="the feed epoch: the time between two restores")
    add_command(
        group.add_subparsers(dest="action", required=True, metavar="ACTION"),
        "rotate",
        rotate,
        summary="begin a new feed epoch, after a restore and before the first device connects",
        details="Devices start their copy afresh, keep pending work, and send again what the backup did not know. "
        "Revocations since the backup are applied again.",
        examples="  pg_restore … && backhaul migrate && backhaul epoch rotate && backhaul serve",
    )


def durable(args: argparse.Namespace) -> int:
    """Move the durable position, or print the present one."""
    from server.services.restore import keep_until, position

    with desk(settings_of(args)) as open_desk:
        if args.as_of is None:
            print(position(open_desk))
        else:
            print(f"Work up to {keep_until(open_desk, args.as_of, OPERATOR)} is durable.")
    return 0


def rotate(args: argparse.Namespace) -> int:
    """Begin a new feed epoch."""
    from server.services.restore import rotate as begin_epoch

    with desk(settings_of(args)) as open_desk:
        number, revocations = begin_epoch(open_desk, OPERATOR)
    print(f"This is feed epoch {number}. {revocations} revocations were applied again.")
    return 0
