"""ETags of records and cases, and what If-Match asks for."""

from __future__ import annotations

import re
from typing import Final

from flask import request

from sync.errors import PreconditionRequired

NEVER: Final = "-"  # what no resource has as its tag
_STRONG: Final = re.compile(r'"([\x21\x23-\x7e]{1,64})"')


def etag(tag: object) -> str:
    """`17` as a header shows it: `"17"`."""
    return f'"{tag}"'


def wanted_tag() -> str | None:
    """The tag that If-Match names, None for `*`. Raises PreconditionRequired without the header.

    A weak tag, a list or anything else that can match no single resource gives NEVER, which no resource has.
    """
    header = request.headers.get("If-Match")
    if header is None or not header.strip():
        raise PreconditionRequired()
    if header.strip() == "*":
        return None
    strong = _STRONG.fullmatch(header.strip())
    return strong[1] if strong else NEVER


def wanted_version() -> int | None:
    """The version that If-Match names, None for any; 0, which no record has, if it names none."""
    tag = wanted_tag()
    if tag is None:
        return None
    return int(tag) if re.fullmatch(r"[1-9][0-9]{0,17}", tag) else 0
