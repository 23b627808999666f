"""The day that `run --demo` plays: two technicians lose signal, the office goes on, and then it all comes together.

The technicians are real devices: child processes of the SDK's own command line, each on its SQLite file, which reach
the server over HTTP like any other. What is told afterwards is read back from the API, not known beforehand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from server.services.demo import technician_id, van_id
from server.services.keys import KeyRing
from server.services.tokens import issue_access
from server.settings import Settings

WIDTH = 100
STEP_S = 60  # far more than any step takes; a story that hangs is worse than one that says so


class StoryFailed(Exception):
    """A step of the story did not go as it should; the message says which."""


def play(settings: Settings, url: str) -> None:
    """Play the day against the API at `url`, and tell it. A failure is told too, and the server stays up."""
    try:
        with httpx.Client(base_url=url, timeout=STEP_S, trust_env=False) as http:
            _Story(settings, url, _Office(http, settings)).tell()
    except (StoryFailed, httpx.HTTPError) as error:
        print(f"The demo stopped here: {error}", file=sys.stderr, flush=True)
    except (LookupError, TypeError, ValueError) as error:
        print(f"The demo stopped here: an answer did not have the shape expected ({error!r})", file=sys.stderr)


# -- who takes part -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Office:
    """A dispatcher at the API."""

    http: httpx.Client
    settings: Settings

    def get(self, path: str, **parameters: str) -> dict[str, Any]:
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, json=body)

    def change(self, path: str, **values: Any) -> dict[str, Any]:
        """Change a record as it stands."""
        version = self.get(path)["version"]
        return self._call("PATCH", path, json=values, headers={"If-Match": f'"{version}"'})

    def _call(self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
        token = issue_access(
            KeyRing.open(self.settings.keys_dir),
            subject="user:olga",
            role="dispatcher",
            scopes=["*"],
            now=time.time(),
            issuer=self.settings.issuer,
        )
        answer = self.http.request(
            method, path, headers={"Authorization": f"Bearer {token}", **(headers or {})}, **more
        )
        if answer.is_error:
            raise StoryFailed(f"{method} {path} answered {answer.status_code}: {answer.text}")
        body: dict[str, Any] = answer.json()
        return body


@dataclass(frozen=True, slots=True)
class _Technician:
    """A technician with a device. file: its replica."""

    id: str
    name: str
    van: str
    file: Path

    def device(self, command: str, *arguments: str) -> str:
        """What `backhaul device COMMAND …` says."""
        done = subprocess.run(
            [sys.executable, "-m", "client_sdk", "device", command, *arguments, "--path", str(self.file)],
            capture_output=True,
            text=True,
            timeout=STEP_S,
            check=False,
        )
        if done.returncode:
            raise StoryFailed(f"`backhaul device {command}` of {self.name}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def write(self, entity: str, id: str, **values: str) -> None:
        """Write fields of a record, without a network."""
        self.device("set", entity, id, *(f"{name}={value}" for name, value in values.items()))


@dataclass(frozen=True, slots=True)
class _Job:
    """A work order of the story."""

    id: str
    title: str
    description: str


class _Story:
    def __init__(self, settings: Settings, url: str, office: _Office) -> None:
        self._settings, self._url, self._office = settings, url, office
        day = datetime.now(UTC)
        folder = settings.data_dir.resolve() / "devices" / f"{day:%Y%m%d-%H%M%S}"
        self._first, self._second = (
            _Technician(
                technician_id(number),
                office.get(f"/v1/technicians/{technician_id(number)}")["name"],
                van_id(number),
                folder / f"{technician_id(number)}.db",
            )
            for number in (0, 1)
        )
        self._mark = f"{day:%H%M%S}"
        self._pump = _Job(
            f"WO-{self._mark}-1",
            "Pump leaks, Osterhaven Swimming Pool",
            "Ring at the side door.\nWater below the circulator pump.\nThe isolating valves are stiff.",
        )
        self._heating = _Job(
            f"WO-{self._mark}-2",
            "No heating, Tarnmill Bakery",
            "The controller shows a burner fault.\nCall the caretaker on arrival.",
        )
        self._filters = _Job(
            f"WO-{self._mark}-3",
            "Filter change, Umberford Library",
            "Change all filters of the air handler.\nThey are on the shelf in the plant room.",
        )
        self._today = day

    def tell(self) -> None:
        began = time.monotonic()
        self._morning()
        self._offline()
        self._meanwhile()
        self._reconnect()
        self._outcome()
        _say(f"\nThe day took {time.monotonic() - began:.0f} seconds.")
        self._where_to_look()

    # -- the day --------------------------------------------------------------------------------------------------

    def _morning(self) -> None:
        """The office plans three jobs; both technicians join and sync."""
        _head("Morning: the office plans three jobs, two technicians join with one-time codes and sync")
        for job, who in ((self._pump, self._first), (self._heating, self._second), (self._filters, self._second)):
            self._office.post("/v1/work-orders", {
                "id": job.id, "number": job.id, "title": job.title, "description": job.description,
                "depot_id": "WH-01", "assignee_id": who.id, "status": "assigned", "priority": "normal",
                "scheduled_start": _moment(self._today),
            })  # fmt: skip
            _say(f"  {job.id}  {job.title:<40} {who.name}")
        for who in (self._first, self._second):
            code = self._office.post("/v1/enrolment-codes", {"technician_id": who.id, "note": "demo"})["code"]
            who.device("join", self._url, code)
            who.device("sync")

    def _offline(self) -> None:
        """What the technicians write while nothing of it can be sent."""
        first, second = self._first, self._second
        part = self._part_in_van(first)
        _head("Signal is lost. On the devices:")
        first.write("work_order", self._pump.id, status="in_progress")
        first.write(
            "part_consumption", f"{self._pump.id}-P1", work_order_id=self._pump.id, part_id=part["id"], quantity="1",
            location_id=first.van, line_status="used", occurred_at=_moment(datetime.now(UTC)),
        )  # fmt: skip
        first.write(
            "note", f"{self._pump.id}-N1", parent=f'{{"entity":"work_order","id":"{self._pump.id}"}}',
            text="The tray below the pump is still full, please empty it.", author_id=first.id,
        )  # fmt: skip
        first.write(
            "work_order", self._pump.id, meter_reading="812.5",
            description=self._pump.description.replace("are stiff", "are stiff: renew them at the next visit"),
        )  # fmt: skip
        first.write("work_order", self._pump.id, status="completed", resolution="Seal changed, pressure holds.")
        _told(first.name, f"starts {self._pump.id}, uses 1 × {part['name']}, writes a note and the meter reading "
              "812.5, adds to the last line of the description, and completes the job")  # fmt: skip

        second.write("work_order", self._heating.id, status="in_progress")
        second.write(
            "work_order", self._heating.id,
            description=self._heating.description.replace("a burner fault", "fault 4: no flame"),
        )  # fmt: skip
        second.write("work_order", self._filters.id, status="in_progress")
        second.write("work_order", self._filters.id, status="completed", resolution="All filters changed.")
        _told(second.name, f"rewrites the first line of the description of {self._heating.id}, and completes "
              f"{self._filters.id}")  # fmt: skip

    def _part_in_van(self, who: _Technician) -> dict[str, Any]:
        """A part that the technician has aboard."""
        stock = self._office.get("/v1/toolkit-items", location_id=who.van)["items"]
        aboard = [item for item in stock if float(item.get("available") or 0) >= 1 and not item.get("serial")]
        if not aboard:
            raise StoryFailed(f"{who.van} is empty")
        return self._office.get(f"/v1/parts/{aboard[0]['part_id']}")

    def _meanwhile(self) -> None:
        """What the office writes, knowing nothing of that."""
        _head("Meanwhile at the office, which knows nothing of that:")
        office = self._office
        office.change(
            f"/v1/work-orders/{self._pump.id}", priority="high", meter_reading="810.0",
            description=self._pump.description.replace("Ring at the side door.", "The side door is open until 16:00."),
        )  # fmt: skip
        office.change(
            f"/v1/work-orders/{self._heating.id}",
            description=self._heating.description.replace("a burner fault", "E4 since six o'clock"),
        )
        office.change(
            f"/v1/work-orders/{self._filters.id}", status="cancelled", status_reason="The library is closed today."
        )
        _told(self._pump.id, "gets a higher priority, another first line, and 810.0 that somebody read over the phone")
        _told(self._heating.id, "gets another first line of its description")
        _told(self._filters.id, "is cancelled")

    def _reconnect(self) -> None:
        """Twice: the first to sync has sent its work before the second did."""
        _head("Signal is back: both devices sync")
        said = {who.name: who.device("sync").splitlines()[-1] for who in (self._first, self._second)}
        for who in (self._first, self._second):
            who.device("sync")
        for name, line in said.items():
            _told(name, line)

    # -- what became of it ----------------------------------------------------------------------------------------

    def _outcome(self) -> None:
        jobs = (self._pump, self._heating, self._filters)
        decided: dict[tuple[str, str], Mapping[str, Any]] = {}
        for job in jobs:
            for version in self._history(job):
                # Of several decisions about one field the last one counts.
                decided |= {(job.id, one["name"]): one for one in version["fields"] if one.get("policy")}
        waiting = {place: one for place, one in decided.items() if one.get("kept") == "waiting"}
        merged = {place: one for place, one in decided.items() if place not in waiting}
        _head("Both had written, and a rule decided:")
        for place, one in merged.items():
            _decision(*place, one)
        _head("Both had written, and a person has to decide; until then the office's word stands:")
        for place, one in waiting.items():
            _decision(*place, one)
        _head("All else went in as it was written. Where the jobs stand now:")
        for job in jobs:
            now = self._office.get(f"/v1/work-orders/{job.id}")
            meter = f", meter {now['meter_reading']}" if now.get("meter_reading") else ""
            _say(f"  {job.id}  {now['status']}, priority {now['priority']}{meter}")
            for line in (now.get("description") or "").splitlines():
                _say(f"      | {line}")
        for line in self._office.get("/v1/part-consumptions", work_order_id=self._pump.id)["items"]:
            _say(f"  {line['id']}  {line['quantity']} {line['uom']} of part {line['part_id']} {line['line_status']}")

    def _history(self, job: _Job) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._office.get(f"/v1/work-orders/{job.id}/history")["items"]
        return items[::-1]

    def _where_to_look(self) -> None:
        cases = self._office.get("/v1/conflicts", status="open")["items"]
        own = [case for case in cases if case["record_id"].startswith(f"WO-{self._mark}-")]
        _head(f"Open review cases: {len(own)} of today, {len(cases)} in all")
        for case in own:
            _say(f"  {case['id']}  {case['record_id']}  {case['type']}: {', '.join(case['fields']) or 'all of it'}")
        backhaul, folder = _command(), self._settings.data_dir
        where = "" if folder == Settings().data_dir else f" --data-dir {folder}"
        _head("Where to look next")
        _say(f"  {self._url}/v1/openapi.json")
        _say(f"  TOKEN=$({backhaul} token --role reviewer --subject vera{where})")
        for page in ("conflicts?status=open", f"work-orders/{self._filters.id}/history", "schema"):
            _say(f"  curl -H \"Authorization: Bearer $TOKEN\" '{self._url}/v1/{page}'")
        _say(f"  {backhaul} device list work_order --path {_near(self._first.file)}\n")


def _command() -> str:
    """How this command was called, to be typed again."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m client_sdk"
    found = shutil.which(called.name)
    return called.name if found and Path(found) == called.resolve() else _near(called.absolute())


def _near(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _decision(job: str, field: str, decided: Mapping[str, Any]) -> None:
    """One decision, in words."""
    _say(f"  {job}  {field}, by the policy {decided['policy']}")
    _told("stood", _short(decided.get("before")), indent=6)
    _told("sent", _short(decided.get("sent")), indent=6)
    if decided.get("kept") != "waiting":
        _told("now", _short(decided.get("after")), indent=6)
    _told("why", str(decided.get("why") or ""), indent=6)


def _short(value: Any) -> str:
    """A value on one line."""
    return " / ".join(str(value).splitlines())


# -- telling ------------------------------------------------------------------------------------------------------


def _head(text: str) -> None:
    _say(f"\n{text}")


def _told(who: str, what: str, indent: int = 2) -> None:
    lead = f"{' ' * indent}{who}: " if what else f"{' ' * indent}{who}"
    for line in textwrap.wrap(what, WIDTH - len(lead)) or [""]:
        _say(f"{lead}{line}".rstrip())
        lead = " " * len(lead)


def _say(line: str) -> None:
    print(line, flush=True)


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
