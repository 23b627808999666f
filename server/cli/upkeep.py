"""`backhaul purge`: what the nightly job tells the server."""

from __future__ import annotations

import argparse

from server.cli.options import OPERATOR, Subparsers, add_command, desk, fail, settings_of


def add(subparsers: Subparsers) -> None:
    """Add `purge`."""
    parser = add_command(
        subparsers,
        "purge",
        purge,
        summary="forget deletions that every device has had the time to learn of",
        details="Run it once a day. A device that was away for longer starts its copy afresh; its own work is kept.",
        examples="  backhaul purge             # older than TOMBSTONE_DAYS\n  backhaul purge --days 90",
    )
    parser.add_argument("--days", type=int, metavar="N", help="how old deletions have to be (TOMBSTONE_DAYS, 180)")


def purge(args: argparse.Namespace) -> int:
    """Drop old deletions and evictions from the feed."""
    from server.services.upkeep import purge_older

    settings = settings_of(args)
    days = settings.tombstone_days if args.days is None else args.days
    if days < 1:
        return fail("--days takes a number of days, 1 or more.", status=2)
    with desk(settings) as open_desk:
        purged = purge_older(open_desk, days, OPERATOR)
    print(
        f"Older than {days} days: {purged.feed_rows} feed rows, {purged.tombstones} tombstones and "
        f"{purged.memberships} memberships were dropped."
    )
    return 0
