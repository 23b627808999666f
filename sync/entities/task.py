"""Tasks: the steps of a work order, each with its checklist."""

from __future__ import annotations

from typing import Any

from sync.entity import (
    ADMIN,
    DISPATCHER,
    INTEGRATION,
    REVIEWER,
    TECHNICIAN,
    Contest,
    StateMachine,
    Transition,
    boolean,
    integer,
    log,
    reference,
    state,
    synced,
    text,
)

PLANNERS = (DISPATCHER, INTEGRATION, ADMIN)
REPORTERS = (TECHNICIAN, DISPATCHER, REVIEWER, INTEGRATION, ADMIN)

_ON_SITE = (TECHNICIAN,)
_REOPENERS = (TECHNICIAN, REVIEWER)  # a slip of the finger is put right by whoever made it

STATES = StateMachine(
    precedence=("open", "in_progress", "cancelled", "incomplete", "completed"),
    transitions=(
        Transition("open", "in_progress", _ON_SITE, fact=True),
        Transition("open", "completed", _ON_SITE, fact=True),
        Transition("open", "incomplete", _ON_SITE, fact=True),
        Transition("in_progress", "completed", _ON_SITE, fact=True),
        Transition("in_progress", "incomplete", _ON_SITE, fact=True),
        Transition("completed", "in_progress", _REOPENERS, fact=True),
        Transition("incomplete", "in_progress", _REOPENERS, fact=True),
        Transition("cancelled", "completed", (REVIEWER,), fact=True),
        Transition("open", "cancelled", (TECHNICIAN, *PLANNERS)),
        Transition("in_progress", "cancelled", (TECHNICIAN, *PLANNERS)),
        Transition("cancelled", "open", PLANNERS),
    ),
    contests=(
        Contest(("completed", "cancelled"), earlier_wins=True),
        Contest(("incomplete", "cancelled"), earlier_wins=True),
        Contest(("in_progress", "cancelled")),
        Contest(("completed", "incomplete")),
    ),
)


@synced(
    "task",
    scopes=("tech:{work_order_id.assignee_id}", "depot:{work_order_id.depot_id}"),
    on_delete="edit_resurrects",
    created_by=REPORTERS,
    deleted_by=PLANNERS,
)
class Task:
    """One step of a work order."""

    id: str = ""
    work_order_id: str = reference("work_order", policy="review", written_by=REPORTERS, doc="the job it belongs to")
    title: str = text(written_by=REPORTERS, doc="what to do")
    instructions: str | None = text(max_length=20_000, written_by=REPORTERS, default=None, doc="how to do it")
    status: str = state(STATES, written_by=REPORTERS, default="open", doc="how far it has come")
    status_reason: str | None = text(
        max_length=500, policy="last_writer", written_by=REPORTERS, default=None, doc="why it was left or cancelled"
    )
    position: int | None = integer(policy="last_writer", written_by=REPORTERS, default=None, doc="place in the list")
    mandatory: bool = boolean(
        policy="last_writer", written_by=PLANNERS, default=False, doc="the job is not complete without it"
    )
    # Two people may answer the same question: both answers stay, the latest is shown.
    answers: tuple[Any, ...] = log(
        written_by=REPORTERS, fact=True, default=(), doc="checklist answers: {question, version, value, author_id, at}"
    )
