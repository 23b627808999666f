"""Bodies of requests and answers: the one place where bytes of a client become values, and values become bytes.

A request's body is hostile until it was read here. It is unpacked within bounds, and then parsed by rules stricter than
JSON's own: what two parsers may understand differently (equal keys, NaN, long numbers, lone surrogates) and what the
database cannot keep (NUL) is refused, so that nothing behind this file has to think of it.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import flask_smorest  # type: ignore[import-untyped]  # ships no types
import marshmallow as ma
import orjson
import zstandard
from flask import Request, Response
from flask import request as current_request
from webargs.core import missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import HTTPException

from sync.errors import Malformed, TooLarge, UnsupportedEncoding

MAX_BODY_BYTES: Final = 8 * 1024 * 1024  # on the wire and unpacked; 500 mutations with long notes are a tenth of it
MAX_RATIO: Final = 100  # unpacked to packed; pushes of 500 like mutations reach 40, bombs 1000
MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 19  # of one number
MAX_INTEGER: Final = 2**53 - 1  # above it a client that reads numbers as doubles sees another number
MAX_VALUES: Final = 500_000  # 8 MiB of `{},` would become 300 MB of objects and a second of work
COMPRESS_FROM_BYTES: Final = 1024  # below, the packed form saves no packet
_CHUNK_BYTES: Final = 64 * 1024


# -- reading ------------------------------------------------------------------------------------------------------


def read_json(request: Request) -> Any:
    """The value that the body of `request` holds. Read it once: the stream is used up.

    The content type is not looked at: every body of this API is JSON.
    Raises UnsupportedEncoding (415), TooLarge (413: bytes, ratio or number of values), Malformed (400: all else).
    """
    return parse_json(read_bytes(request))


def read_bytes(request: Request) -> bytes:
    """The unpacked body, at most MAX_BODY_BYTES. Raises as `read_json` does."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "zstd"):
        raise UnsupportedEncoding()
    wire = _read_wire(request)
    if not wire:
        return wire
    # The whole wire body is here, so the ratio is one number and not a race between two counters.
    limit = min(MAX_BODY_BYTES, MAX_RATIO * len(wire))
    match encoding:
        case "gzip":
            return _unpack_gzip(wire, limit)
        case "zstd":
            return _unpack_zstd(wire, limit)
        case _:
            return wire


def _read_wire(request: Request) -> bytes:
    """Counts what arrives. Content-Length may be absent (chunked) or a lie, so it is never believed."""
    parts, size_bytes = [], 0
    try:
        while part := request.stream.read(_CHUNK_BYTES):
            size_bytes += len(part)
            if size_bytes > MAX_BODY_BYTES:
                raise TooLarge()
            parts.append(part)
    except HTTPException as error:  # werkzeug: the client hung up (400), or the app's own limit (413)
        if error.code == TooLarge.status:
            raise TooLarge() from error
        raise Malformed("The body ended before its announced length. Send it again.") from error
    except TooLarge:
        raise
    except Exception as error:  # whatever the HTTP server's parser raises for a broken chunk; not all are OSErrors
        raise Malformed("The body could not be read to its end. Send it again.") from error
    return b"".join(parts)


def _unpack_gzip(wire: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # 31: a gzip header and nothing else
    try:
        body = unpacker.decompress(wire, limit + 1)
    except zlib.error as error:
        raise Malformed("The body is not valid gzip.") from error
    if len(body) > limit:
        raise TooLarge()
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed("The gzip body is cut off, or something follows its end.")
    return body


def _unpack_zstd(wire: bytes, limit: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_BODY_BYTES)
    try:
        # -1: the frame does not say. What it says is only used to refuse; `decompress` would allocate by it.
        if zstandard.frame_content_size(wire) > limit:
            raise TooLarge()
        return unpacker.decompress(wire, max_output_size=limit, allow_extra_data=False)
    except zstandard.ZstdError as error:
        # One message for "cut off" and "larger than the buffer": only reading on tells them apart.
        if _is_larger_zstd(unpacker, wire, limit):
            raise TooLarge() from error
        raise Malformed("The body is not valid zstd, is cut off, or something follows its end.") from error


def _is_larger_zstd(unpacker: zstandard.ZstdDecompressor, wire: bytes, limit: int) -> bool:
    try:
        return len(unpacker.stream_reader(wire).read(limit + 1)) > limit
    except zstandard.ZstdError:
        return False


# -- parsing ------------------------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Any:
    """The value of a JSON text under the rules of this API. Raises Malformed, TooLarge (too many values)."""
    if not body:
        raise Malformed("The body is empty. Send JSON.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8: byte {error.start} does not fit.") from error
    if text.startswith("\ufeff"):
        raise Malformed("The body begins with a byte order mark. Send UTF-8 without it.")
    opened = text.count("{") + text.count("[")
    if opened + text.count(",") > MAX_VALUES:
        raise TooLarge("The body holds more values than the server reads. Send fewer mutations at once.")
    value = _decode(text)
    if opened > MAX_DEPTH:
        _refuse_deep(value)
    # Raw NULs and surrogates are gone by now (the decoder and UTF-8 refuse them); only an escape can still write one.
    if "\\u" in text and _SUSPECT_ESCAPE.search(text):
        _refuse_unstorable(value, "$")
    return value


def _decode(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error.msg}, line {error.lineno} column {error.colno}.") from error
    except RecursionError as error:
        raise Malformed(f"The body is nested deeper than {MAX_DEPTH} levels.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed(f"An object has the key {_quoted(_first_repeated(pairs))} twice.")
    return members


def _first_repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS + 1 or (len(text) == MAX_DIGITS + 1 and text[0] != "-"):
        raise Malformed(f"The number {text[:MAX_DIGITS]}… has more than {MAX_DIGITS} digits.")
    number = int(text)
    if not -MAX_INTEGER <= number <= MAX_INTEGER:
        raise Malformed(f"The integer {text} is beyond 2^53-1. Send large numbers as strings.")
    return number


def _fraction(text: str) -> float:
    if len(text) > MAX_DIGITS and sum(map(str.isdigit, text)) > MAX_DIGITS:
        raise Malformed(f"The number {text[:MAX_DIGITS]}… has more than {MAX_DIGITS} digits.")
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Malformed(f"The number {text} is too large.")
    return number


def _constant(text: str) -> NoReturn:
    raise Malformed(f"{text} is not JSON.")


# Any JSONDecoder may be used by many threads: its state is in the call.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
)
_SUSPECT_ESCAPE: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")  # a pair, or an escaped backslash, may be innocent
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def _refuse_deep(value: Any) -> None:
    """Level by level, in comprehensions: 0.3 ms for 500 mutations, where a recursive walk takes 2."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise Malformed(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _refuse_unstorable(value: Any, path: str) -> None:
    match value:
        case str() if _UNSTORABLE.search(value):
            raise Malformed(f"The text at {path} holds a NUL or half of a surrogate pair.")
        case list():
            for index, item in enumerate(value):
                _refuse_unstorable(item, f"{path}[{index}]")
        case dict():
            for name, item in value.items():
                if _UNSTORABLE.search(name):
                    raise Malformed(f"The key {_quoted(name)} in {path} holds a NUL or half of a surrogate pair.")
                _refuse_unstorable(item, f"{path}.{ascii(name[:64])[1:-1]}")


def _quoted(name: str) -> str:
    """Short and ASCII: the name may hold what neither a log nor an answer can."""
    return ascii(name[:64])


# -- into flask-smorest -------------------------------------------------------------------------------------------


class Envelope(ma.Schema):
    """The base of the schemas of request bodies: members of a newer peer that this server does not know are let be."""

    class Meta:
        unknown = ma.EXCLUDE


class BodyParser(FlaskParser):
    """Gives webargs the body by `read_json`'s rules. An empty body counts as `{}`: the schema says what is missing."""

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        body = read_bytes(req)
        return parse_json(body) if body else missing


View = TypeVar("View", bound=Callable[..., Any])


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # of no known type, see above
    """flask-smorest's blueprint, reading bodies by the rules of this file. Use this one for every JSON endpoint."""

    ARGUMENTS_PARSER = BodyParser()

    if TYPE_CHECKING:  # flask-smorest's decorators have no types, and would take those of every view away

        def route(self, rule: str, **options: Any) -> Callable[[View], View]: ...
        def arguments(self, schema: Any, **documented: Any) -> Callable[[View], View]: ...
        def response(self, status_code: int, schema: Any = None, **documented: Any) -> Callable[[View], View]: ...
        def alt_response(self, status_code: int, **documented: Any) -> Callable[[View], View]: ...
        @staticmethod
        def doc(**documented: Any) -> Callable[[View], View]: ...

    def json_body(self, schema: ma.Schema | type[ma.Schema], **documented: Any) -> Callable[[View], View]:
        """Decorator: the body, loaded by `schema` (see Envelope), becomes the view's next positional argument.

        documented: description, example, examples, required for the OpenAPI document.
        """
        return self.arguments(schema, location="json", **documented)


# -- answering ----------------------------------------------------------------------------------------------------


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON, packed if the client takes it. Decimals become strings, exactly as they stand.

    value: what orjson takes, also `orjson.Fragment` for text that is JSON already.
    headers: win over the defaults (Cache-Control: no-store).
    """
    body = to_json(value)
    response = Response(body, status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept-Encoding"
    if len(body) > COMPRESS_FROM_BYTES:
        _pack(response, body)
    response.headers.update(headers or {})
    return response


def to_json(value: Any) -> bytes:
    """`value` as UTF-8 JSON; decimals as strings. Raises TypeError for what orjson cannot write."""
    return orjson.dumps(value, default=_to_text)


def _pack(response: Response, body: bytes) -> None:
    accepted = current_request.accept_encodings
    zstd, gzipped = accepted.quality("zstd"), accepted.quality("gzip")
    if zstd > 0 and zstd >= gzipped:
        response.set_data(_zstd_compressor().compress(body))
        response.headers["Content-Encoding"] = "zstd"
    elif gzipped > 0:
        response.set_data(gzip.compress(body, compresslevel=1, mtime=0))
        response.headers["Content-Encoding"] = "gzip"


_of_thread = threading.local()


def _zstd_compressor() -> zstandard.ZstdCompressor:
    """One a thread: a compressor must not be shared, and making one costs more than packing a small answer."""
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = zstandard.ZstdCompressor(level=3)
    compressor: zstandard.ZstdCompressor = _of_thread.compressor
    return compressor


def _to_text(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")  # str() would write 1E+3
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
