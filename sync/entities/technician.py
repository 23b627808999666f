"""Technicians: who does the work, from which depot and with which van."""

from __future__ import annotations

from sync.entity import (
    ADMIN,
    DISPATCHER,
    INTEGRATION,
    TECHNICIAN,
    boolean,
    reference,
    synced,
    tags,
    text,
)

PLANNERS = (DISPATCHER, INTEGRATION, ADMIN)
OWN = (TECHNICIAN, *PLANNERS)


@synced(
    "technician",
    scopes=("tech:{id}", "depot:{depot_id}"),
    created_by=PLANNERS,
    deleted_by=PLANNERS,
)
class Technician:
    """A person who works on site. The record's id is the technician's id."""

    id: str = ""
    name: str = text(policy="owner_wins", owner="fsm", written_by=PLANNERS, doc="as colleagues and customers know them")
    depot_id: str | None = reference(
        "location",
        policy="owner_wins",
        owner="fsm",
        written_by=PLANNERS,
        default=None,
        doc="the warehouse they are supplied from; decides which stock their device holds",
    )
    level: str | None = text(
        max_length=40, policy="owner_wins", owner="fsm", written_by=PLANNERS, default=None, doc="seniority or grade"
    )
    van_id: str | None = reference(
        "location", policy="owner_wins", owner="fsm", written_by=PLANNERS, default=None, doc="the van they drive"
    )
    active: bool = boolean(
        policy="owner_wins", owner="fsm", written_by=PLANNERS, default=True, doc="false: gets no more work"
    )
    skills: tuple[str, ...] = tags(written_by=PLANNERS, default=(), doc="what they are certified for")
    phone: str | None = text(
        max_length=40, policy="last_writer", written_by=OWN, default=None, doc="where they are reached on the road"
    )
    language: str | None = text(
        max_length=35, policy="last_writer", written_by=OWN, default=None, doc="BCP 47 tag of the language they read"
    )
