"""The network between a device and the hub: JSON texts that may be lost, doubled, delayed or answered in vain."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

from sync.errors import SyncError, Unavailable
from sync.mutation import Result
from sync.protocol import Page, PullRequest, Push, PushResult
from sync.wire import (
    page_from_wire,
    pull_to_query,
    push_result_from_wire,
    push_to_wire,
    result_to_wire,
)

if TYPE_CHECKING:
    from tests.simulation.device import SimDevice
    from tests.simulation.world import World

LOSS = 0.3  # of the calls meet a fault while there is chaos


class DeviceDied(BaseException):
    """The device's process ended in the middle of a call."""


class Link:
    """The SyncServer that a device sees."""

    def __init__(self, world: World, device: SimDevice) -> None:
        self._world, self._device = world, device
        self.chance: Random | None = None  # None: no faults

    def push(self, push: Push) -> PushResult:
        return push_result_from_wire(self._call("push", push_to_wire(push)))

    def pull(self, request: PullRequest) -> Page:
        return page_from_wire(self._call("pull", pull_to_query(request)))

    def _call(self, kind: str, document: Any) -> Any:
        text = json.dumps(document, ensure_ascii=False)
        self._die_if_due()
        answer = self._carry(kind, text)
        self._die_if_due()
        return _opened(answer)

    def _die_if_due(self) -> None:
        if self._device.is_dead:
            raise DeviceDied

    def _carry(self, kind: str, text: str) -> str:
        world, device = self._world, self._device
        fault = self._fault(kind)
        if fault:
            world.saw(fault)
        if fault == "drop_request":
            raise Unavailable("The request was lost.")
        if fault == "late_request":
            world.delayed.append((device.name, device.technician, text))
            raise Unavailable("The request is on its way for a long time.")
        if fault in ("hub_fails_before_commit", "hub_fails_after_commit"):
            world.hub.failure.armed = fault.removeprefix("hub_fails_")
        answer = world.serve(device.name, device.technician, kind, text)
        if fault == "drop_answer":
            raise Unavailable("The answer was lost.")
        if fault == "duplicate_request":
            second = world.serve(device.name, device.technician, kind, text)
            if kind == "push" and world.journal.requests and self.chance and self.chance.random() < 0.5:
                return second
        return answer

    def _fault(self, kind: str) -> str | None:
        if self.chance is None or self.chance.random() > LOSS:
            return None
        faults = ["drop_request", "drop_answer", "duplicate_request"]
        if kind == "push":
            faults += ["late_request", "hub_fails_before_commit", "hub_fails_after_commit"]
        return self.chance.choice(faults)


# -- errors as texts ----------------------------------------------------------------------------------------------


def sealed_error(error: SyncError) -> str:
    """An error as it travels."""
    extras = {
        name: [result_to_wire(one) if isinstance(one, Result) else one for one in value]
        if isinstance(value, list) else value
        for name, value in error.extras.items()
    }  # fmt: skip
    return json.dumps({"code": error.code, "detail": error.detail, "extras": extras}, ensure_ascii=False)


def _opened(text: str) -> Any:
    answer = json.loads(text)
    if "code" in answer:
        raise _KINDS[answer["code"]](answer["detail"], **answer["extras"])
    return answer


def _kinds(kind: type[SyncError]) -> list[type[SyncError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


_KINDS = {kind.code: kind for kind in _kinds(SyncError)}
