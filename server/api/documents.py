"""Words for the OpenAPI document: parameters that endpoints read themselves, and the errors they may answer."""

from __future__ import annotations

import http
from collections.abc import Callable
from typing import Any, TypeVar

from server.web.body import Blueprint

View = TypeVar("View", bound=Callable[..., Any])


def query(name: str, doc: str, shape: dict[str, Any] | None = None) -> dict[str, Any]:
    """A parameter of the query string."""
    return {"in": "query", "name": name, "description": doc, "schema": shape or {"type": "string"}}


def header(name: str, doc: str, *, required: bool = False) -> dict[str, Any]:
    """A header of the request."""
    return {"in": "header", "name": name, "description": doc, "required": required, "schema": {"type": "string"}}


def body(schema: Any, doc: str = "") -> dict[str, Any]:
    """A JSON body that the endpoint reads without marshmallow."""
    return {"required": True, "description": doc, "content": {"application/json": {"schema": schema}}}


LIMIT = query("limit", "how many at most", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100})
AFTER = query("after", "the `next` of the page before")
IF_MATCH = header("If-Match", "the ETag of what you read; * for whatever stands", required=True)


def sort(names: list[str], default: str = "id") -> dict[str, Any]:
    """The parameter `sort` of a list."""
    either = [sign + name for name in names for sign in ("", "-")]
    return query("sort", "a field, with - in front for descending", {"enum": either, "default": default})


def errors(blueprint: Blueprint, *statuses: int) -> Callable[[View], View]:
    """Decorator: the view may answer with a problem of these statuses."""

    def document(view: View) -> View:
        for status in statuses:
            view = blueprint.alt_response(status, response=http.HTTPStatus(status).name)(view)
        return view

    return document
