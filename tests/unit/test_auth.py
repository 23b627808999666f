"""Nobody calls what a view does not open to them; and a device is what its row says, at every request."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from flask import Flask, Response
from flask.views import MethodView

from server.services.keys import KeyRing
from server.services.tokens import issue_access, issue_refresh
from server.web.auth import ROLES, allow, current_caller, install_auth, open_to_all, sees, undeclared_endpoints
from server.web.body import Blueprint, answer
from server.web.correlation import install_correlation
from server.web.problems import ProblemApi, install_problems

NOW = 1_800_000_000.0
ISSUER = "https://backhaul.example"


@dataclass
class Device:
    technician_id: str = "T-1"
    scopes: tuple[str, ...] = ("tech:T-1", "catalog:all")
    revoked: Literal["retired", "lost"] | None = None


@dataclass
class Server:
    """The app under test, its devices and its clock."""

    app: Flask
    keys: KeyRing
    devices: dict[str, Device]
    now: list[float] = field(default_factory=lambda: [NOW])

    def get(self, path: str, token: str | None = None, method: str = "GET") -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.app.test_client().open(path, method=method, headers=headers)

    def token(self, subject: str, role: str, **said: Any) -> str:
        given: dict[str, Any] = {"scopes": ["*"], "now": NOW, "issuer": ISSUER} | said
        return issue_access(self.keys, subject=subject, role=role, **given)

    def user(self, role: str) -> str:
        """A token of that role, of the kind of caller that may have it."""
        match role:
            case "technician":
                return self.token("device:d1", role)
            case "integration":
                return self.token("system:sap", role, system="erp")
            case _:
                return self.token("user:ada", role)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    app = Flask("test", static_folder=None)
    app.config.update(API_TITLE="t", API_VERSION="1", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/v1", TESTING=True)
    server = Server(app, KeyRing.open(tmp_path / "keys"), {"d1": Device()})
    api, blueprint = ProblemApi(app), Blueprint("v1", __name__, url_prefix="/v1")
    install_correlation(app)
    install_problems(app, api)
    install_auth(app, keys=server.keys, issuer=ISSUER, device_lookup=server.devices.get, clock=lambda: server.now[0])

    @blueprint.route("/me")
    @allow(*ROLES)
    @blueprint.response(200)
    def me() -> Response:
        return answer(vars(current_caller()))

    @blueprint.route("/dispatch", methods=["GET", "POST"])
    @blueprint.response(200)
    @allow("dispatcher")
    def dispatch() -> Response:
        return answer(None)

    @blueprint.route("/open")
    @open_to_all
    def open_() -> Response:
        return answer(None)

    @blueprint.route("/open/me")
    @open_to_all
    def open_me() -> Response:
        return answer(vars(current_caller()))

    @blueprint.route("/forgotten", methods=["GET", "DELETE"])
    def forgotten() -> Response:
        return answer(None)

    @blueprint.route("/parts")
    @allow("auditor")
    class Parts(MethodView):
        def get(self) -> Response:
            return answer(None)

        @allow("inventory_controller")
        def post(self) -> Response:
            return answer(None)

    @blueprint.route("/half")
    class Half(MethodView):
        @allow("auditor")
        def get(self) -> Response:
            return answer(None)

        def delete(self) -> Response:
            return answer(None)

    api.register_blueprint(blueprint)
    return server


def outcome(got: Any) -> tuple[int, str | None]:
    return got.status_code, (got.get_json(force=True) or {}).get("code") if got.status_code >= 400 else None


# -- roles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", sorted(ROLES))
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/dispatch", {"dispatcher"}),
        ("POST", "/v1/dispatch", {"dispatcher"}),
        ("HEAD", "/v1/dispatch", {"dispatcher"}),
        ("GET", "/v1/parts", {"auditor"}),
        ("HEAD", "/v1/parts", {"auditor"}),
        ("POST", "/v1/parts", {"inventory_controller"}),
        ("GET", "/v1/me", set(ROLES)),
    ],
)
def test_a_role_may_call_what_is_declared_for_it_and_admin_all(
    server: Server, role: str, method: str, path: str, allowed: set[str]
) -> None:
    got = server.get(path, server.user(role), method)

    assert got.status_code == (200 if role in allowed | {"admin"} else 403)


@pytest.mark.parametrize("role", sorted(ROLES))
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/forgotten"), ("DELETE", "/v1/forgotten"), ("DELETE", "/v1/half")]
)
def test_a_view_that_does_not_say_who_may_call_it_can_be_called_by_nobody(
    server: Server, role: str, method: str, path: str
) -> None:
    assert outcome(server.get(path, server.user(role), method)) == (403, "forbidden")
    assert outcome(server.get(path, None, method)) == (401, "unauthorized")


def test_the_views_that_do_not_say_are_listed(server: Server) -> None:
    assert undeclared_endpoints(server.app) == ["DELETE /v1/forgotten", "DELETE /v1/half", "GET /v1/forgotten"]


def test_a_role_that_does_not_exist_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="dispacher"):
        allow("dispacher")


def test_an_open_view_asks_for_no_token_and_ignores_a_bad_one(server: Server) -> None:
    assert server.get("/v1/open").status_code == 200
    assert server.get("/v1/open", "nonsense").status_code == 200
    assert server.get("/v1/openapi.json").status_code == 200


def test_an_open_view_has_no_caller(server: Server) -> None:
    assert outcome(server.get("/v1/open/me", server.user("admin"))) == (500, "invariant_broken")


def test_what_does_not_exist_is_said_to_be_so_before_anybody_is_asked_who_they_are(server: Server) -> None:
    assert outcome(server.get("/v1/nothing")) == (404, "not_found")
    assert outcome(server.get("/v1/dispatch", None, "PUT")) == (405, "method_not_allowed")
    assert server.get("/v1/dispatch", None, "OPTIONS").status_code == 200


# -- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Token {token}",
        "Bearer  {token}",
        "Bearer {token} x",
        "Bearer {token}, Bearer {token}",
        "{token}",
    ],
)
def test_a_header_that_is_not_one_bearer_token_is_unauthorized(server: Server, header: str) -> None:
    sent = header.format(token=server.user("dispatcher"))

    got = server.app.test_client().get("/v1/dispatch", headers={"Authorization": sent})

    assert outcome(got) == (401, "unauthorized")
    assert got.headers["WWW-Authenticate"] == "Bearer"


def test_the_scheme_may_be_written_in_any_case(server: Server) -> None:
    got = server.app.test_client().get("/v1/me", headers={"Authorization": f"bearer {server.user('auditor')}"})

    assert got.status_code == 200


def test_a_token_ends_in_its_time(server: Server) -> None:
    token = server.user("dispatcher")
    assert server.get("/v1/dispatch", token).status_code == 200

    server.now[0] = NOW + 900

    assert outcome(server.get("/v1/dispatch", token)) == (401, "unauthorized")


def test_a_refresh_token_opens_nothing(server: Server) -> None:
    token = issue_refresh(server.keys, family="f", device="d1", technician="T-1", counter=1, now=NOW, issuer=ISSUER)

    assert outcome(server.get("/v1/me", token)) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("subject", "role", "system"),
    [
        ("device:d1", "admin", None),
        ("device:d1", "integration", "erp"),
        ("user:ada", "technician", None),
        ("user:ada", "integration", "erp"),
        ("user:ada", "emperor", None),
        ("system:sap", "admin", "erp"),
        ("system:sap", "integration", None),
        ("system:sap", "integration", "fsm"),
        ("robot:r2", "admin", None),
        ("admin", "admin", None),
        ("user:", "admin", None),
    ],
)
def test_a_kind_of_caller_has_only_its_own_roles(server: Server, subject: str, role: str, system: str | None) -> None:
    assert outcome(server.get("/v1/me", server.token(subject, role, system=system))) == (401, "unauthorized")


# -- callers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "system"),
    [
        ("dispatcher", "fsm"),
        ("inventory_controller", "platform"),
        ("reviewer", "platform"),
        ("admin", "platform"),
        ("auditor", None),
    ],
)
def test_an_office_caller_writes_with_the_word_of_their_roles_system(
    server: Server, role: str, system: str | None
) -> None:
    got = server.get("/v1/me", server.token("user:ada", role, scopes=["depot:D1"])).get_json()

    assert got == {
        "kind": "user",
        "subject": "user:ada",
        "role": role,
        "scopes": ["depot:D1"],
        "system": system,
        "device_id": None,
        "technician_id": None,
    }


def test_an_integration_writes_with_the_word_of_its_claim(server: Server) -> None:
    got = server.get("/v1/me", server.user("integration")).get_json()

    assert (got["kind"], got["system"]) == ("system", "erp")


def test_a_devices_scopes_come_from_its_row_and_not_from_its_token(server: Server) -> None:
    token = server.token("device:d1", "technician", scopes=["*"])
    before = server.get("/v1/me", token).get_json()

    server.devices["d1"].scopes = ("tech:T-1", "stock:D2")

    assert before["scopes"] == ["tech:T-1", "catalog:all"]
    assert (before["device_id"], before["technician_id"], before["system"]) == ("d1", "T-1", "device")
    assert server.get("/v1/me", token).get_json()["scopes"] == ["tech:T-1", "stock:D2"]


@pytest.mark.parametrize("reason", ["retired", "lost"])
def test_a_revoked_device_is_told_so_at_its_next_request(server: Server, reason: Literal["retired", "lost"]) -> None:
    token = server.user("technician")
    assert server.get("/v1/me", token).status_code == 200

    server.devices["d1"].revoked = reason

    got = server.get("/v1/me", token)
    assert outcome(got) == (401, "device_revoked")
    assert got.get_json(force=True)["reason"] == reason


def test_a_device_without_a_row_is_unauthorized_and_not_revoked(server: Server) -> None:
    assert outcome(server.get("/v1/me", server.token("device:d9", "technician"))) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("held", "record", "visible"),
    [
        (["*"], [], True),
        (["*"], ["tech:T-1"], True),
        (["tech:T-1"], ["tech:T-1", "depot:D1"], True),
        (["tech:T-1"], ["tech:T-10"], False),
        (["tech:T-1"], [], False),
        ([], ["tech:T-1"], False),
        (["tech:*"], ["tech:T-1"], False),
        (["tech:T-1"], ["*"], False),
    ],
)
def test_a_record_is_seen_through_a_scope_that_is_held(held: list[str], record: list[str], visible: bool) -> None:
    assert sees(held, record) is visible
