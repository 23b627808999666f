"""The reader of request bodies takes what the protocol allows, and answers all else with an error of the client's."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import marshmallow as ma
import orjson
import pytest
import zstandard
from flask import Flask, Request, Response
from flask_smorest import Api  # type: ignore[import-untyped]  # ships no types
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import ClientDisconnected
from werkzeug.test import EnvironBuilder

from server.web.body import MAX_BODY_BYTES, Blueprint, Envelope, answer, read_json
from sync.errors import Malformed, Refused, TooLarge, UnsupportedEncoding


def request_of(body: bytes, encoding: str | None = None, **environ: Any) -> Request:
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    built = EnvironBuilder(method="POST", data=body, headers=headers).get_environ()
    return Request({**built, **environ})


def read(body: bytes, encoding: str | None = None) -> Any:
    return read_json(request_of(body, encoding))


def zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(body)


def zstd_of_unknown_size(body: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(body) + packer.flush()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b" \r\n\t[1, 2.5, -3e2, null, true] ", [1, 2.5, -300.0, None, True]),
        ('{"name":"Zoë 🚐"}'.encode(), {"name": "Zoë 🚐"}),
        (rb'"\ud83d\ude90"', "🚐"),
        (rb'"\\u0000 and \\ud800"', r"\u0000 and \ud800"),
        (b"9007199254740991", 2**53 - 1),
        (b"-9007199254740991", -(2**53 - 1)),
        (b"0.123456789012345678", 0.123456789012345678),
        (b"-0.123456789012345678", -0.123456789012345678),
        (b'{"a":{"k":1},"b":{"k":1}}', {"a": {"k": 1}, "b": {"k": 1}}),
        (b'"[[[[ {{{{"', "[[[[ {{{{"),
    ],
)
def test_what_the_protocol_allows_is_read_as_it_stands(body: bytes, value: Any) -> None:
    assert read(body) == value


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "empty"),
        (b"{", "line 1 column"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"[1] 2", "not JSON"),
        (b"/* hi */ {}", "not JSON"),
        (b"01", "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b'"\x00"', "not JSON"),
        (b'{"a":NaN}', "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"-Infinity", "-Infinity"),
        (b"1e400", "too large"),
        (b"-1e400", "too large"),
        (b"9007199254740992", "2^53-1"),
        (b"-9007199254740992", "2^53-1"),
        (b"12345678901234567890", "19 digits"),
        (b"-12345678901234567890", "19 digits"),
        (b"1" * 100_000, "19 digits"),
        (b"1.2345678901234567890", "19 digits"),
        (b"0." + b"1" * 100_000, "19 digits"),
        (b"1e" + b"0" * 30, "19 digits"),
        (b'{"a":1,"b":2,"a":3}', "'a' twice"),
        (rb'{"a":1,"\u0061":2}', "'a' twice"),
        (b'{"x":{"":1,"":2}}', "twice"),
        (rb'{"\ud800":1,"\ud800":2}', "twice"),
        (rb'{"a":["b","c\u0000"]}', "$.a[1]"),
        (rb'"\ud800"', "surrogate"),
        (rb'"\udc00\ud800"', "surrogate"),
        (rb'{"a":"\uD83D"}', "$.a"),
        (rb'{"\u0000":1}', "key"),
        (rb'{"a":{"\udfff":1}}', "key"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-8"),
        ("{}".encode("utf-16-le"), "not JSON"),
        (b'"\xff"', "byte 1"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xc0\x80"', "UTF-8"),
        (nested(65), "64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "64"),
        (nested(5_000), "64"),
        (nested(200_000), "64"),
        (b"[" * 200_000, "64"),
    ],
)
def test_what_two_parsers_could_read_differently_is_malformed(body: bytes, told: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(body)

    assert told in caught.value.detail
    assert len(caught.value.detail) < 300
    caught.value.detail.encode()  # what was sent is told without what an answer or a log cannot hold


def test_sixty_four_levels_are_not_too_deep() -> None:
    assert read(nested(64)) == json.loads(nested(64))


@pytest.mark.parametrize("encoding", [None, "", "identity", "IDENTITY", " identity "])
def test_a_body_that_is_not_packed_is_read(encoding: str | None) -> None:
    assert read(b"[1]", encoding) == [1]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("GZip", gzip.compress), ("zstd", zstd), ("zstd", zstd_of_unknown_size)],
)
def test_a_packed_body_is_read(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    assert read(pack(b'{"a":1}'), encoding) == {"a": 1}


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "gzip, gzip", "gzip,zstd", "identity, gzip", "x-gzip", "*", "gzip;q=1"]
)
def test_any_other_encoding_is_unsupported(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding):
        read(gzip.compress(b"[1]"), encoding)


@pytest.mark.parametrize("pack", [gzip.compress, zstd, zstd_of_unknown_size])
@pytest.mark.parametrize("size_bytes", [50_000, MAX_BODY_BYTES + 1, 100_000_000])
def test_a_bomb_is_too_large(pack: Callable[[bytes], bytes], size_bytes: int) -> None:
    with pytest.raises(TooLarge):
        read(pack(b" " * size_bytes), "gzip" if pack is gzip.compress else "zstd")


@pytest.mark.parametrize("pack", [gzip.compress, zstd, zstd_of_unknown_size])
def test_a_second_layer_is_not_unpacked(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Malformed):
        read(pack(pack(b"[1]")), "gzip" if pack is gzip.compress else "zstd")


def test_a_frame_that_lies_about_its_size_allocates_nothing() -> None:
    frame = bytearray(zstd(b"[1,2,3]" + b" " * 300))
    size_at = frame.index((307 - 256).to_bytes(2, "little"), 4)
    frame[size_at : size_at + 2] = b"\xff\xff"

    with pytest.raises(TooLarge):
        read(bytes(frame), "zstd")


@pytest.mark.parametrize("cut", [1, 5, 9, 15])
@pytest.mark.parametrize("pack", [gzip.compress, zstd, zstd_of_unknown_size])
def test_a_packed_body_that_is_cut_off_is_malformed(pack: Callable[[bytes], bytes], cut: int) -> None:
    with pytest.raises(Malformed):
        read(pack(b'{"note":"belt replaced, wheel trued"}')[:-cut], "gzip" if pack is gzip.compress else "zstd")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"hello", "gzip"),
        (b"hello", "zstd"),
        (zlib.compress(b"[1]"), "gzip"),
        (gzip.compress(b"[1]") + b"more", "gzip"),
        (gzip.compress(b"[1]") * 2, "gzip"),
        (zstd(b"[1]") + b"more", "zstd"),
        (zstd(b"[1]") * 2, "zstd"),
        (b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", "zstd"),
        (gzip.compress(b""), "gzip"),
        (zstd(b""), "zstd"),
    ],
)
def test_what_is_not_one_whole_packed_body_is_malformed(body: bytes, encoding: str) -> None:
    with pytest.raises(Malformed):
        read(body, encoding)


def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    largest = b"[1]" + b" " * (MAX_BODY_BYTES - 3)

    assert read(largest) == [1]
    with pytest.raises(TooLarge):
        read(largest + b" ")


def test_a_body_without_content_length_is_counted_as_it_comes() -> None:
    endless = {
        "CONTENT_LENGTH": "",
        "wsgi.input_terminated": True,
        "wsgi.input": io.BytesIO(b" " * (MAX_BODY_BYTES + 9)),
    }

    with pytest.raises(TooLarge):
        read_json(request_of(b"", **endless))


def test_a_content_length_larger_than_the_body_is_malformed() -> None:
    with pytest.raises(Malformed, match="announced"):
        read_json(request_of(b"[1]", CONTENT_LENGTH="900"))


@pytest.mark.parametrize("error", [OSError("broken chunk"), ClientDisconnected()])
def test_a_stream_that_breaks_is_malformed(error: Exception) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise error

    with pytest.raises(Malformed):
        read_json(request_of(b"", **{"wsgi.input_terminated": True, "CONTENT_LENGTH": "", "wsgi.input": Broken()}))


@pytest.mark.parametrize("body", [b"[" + b"{}," * 2_000_000 + b"{}]", b"[" + b"0," * 2_000_000 + b"0]"])
def test_millions_of_tiny_values_are_too_large(body: bytes) -> None:
    with pytest.raises(TooLarge, match="values"):
        read(body)


@given(st.binary(max_size=400), st.sampled_from([None, "gzip", "zstd", "identity", "br"]))
def test_no_bytes_at_all_raise_anything_but_our_errors(body: bytes, encoding: str | None) -> None:
    with suppress(Refused):
        read(body, encoding)


_ALMOST_JSON = st.lists(
    st.sampled_from(
        [
            '"a"',
            '"',
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "1",
            "-",
            "e9",
            ".5",
            "NaN",
            "null",
            "\\u0000",
            "\\ud800",
            "\\",
            "\x00",
            "9" * 25,
        ]
    ),
    max_size=40,
).map("".join)


@given(_ALMOST_JSON)
def test_no_text_that_is_almost_json_raises_anything_but_our_errors(text: str) -> None:
    with suppress(Refused):
        value = read(text.encode())
        assert orjson.loads(orjson.dumps(value)) == value


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé🚐\\u0", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES, st.booleans(), st.sampled_from([(None, bytes), ("gzip", gzip.compress), ("zstd", zstd)]))
def test_what_python_writes_comes_back(
    value: Any, ascii_only: bool, packing: tuple[str | None, Callable[[bytes], bytes]]
) -> None:
    encoding, pack = packing

    assert read(pack(json.dumps(value, ensure_ascii=ascii_only).encode()), encoding) == value


# -- through flask-smorest ----------------------------------------------------------------------------------------


class Person(Envelope):
    name = ma.fields.String(required=True)


class Reason(Envelope):
    reason = ma.fields.String()


@pytest.fixture
def app() -> Flask:
    app = Flask("test")
    app.config.update(API_TITLE="t", API_VERSION="1", OPENAPI_VERSION="3.1.0", TESTING=True)
    blueprint = Blueprint("people", __name__)

    @blueprint.route("/people", methods=["POST"])
    @blueprint.json_body(Person)
    def create(person: dict[str, Any]) -> Response:
        return answer(person, 201)

    @blueprint.route("/claim", methods=["POST"])
    @blueprint.json_body(Reason)
    def claim(reason: dict[str, Any]) -> Response:
        return answer(reason)

    @blueprint.route("/long")
    def long() -> Response:
        return answer({"text": "x" * 5_000}, headers={"ETag": '"7"'})

    @blueprint.route("/short")
    def short() -> Response:
        return answer([Decimal("2.500"), Decimal("1E+3")], headers={"Cache-Control": "no-cache"})

    Api(app).register_blueprint(blueprint)
    return app


def test_a_view_gets_its_body_through_the_same_reader(app: Flask) -> None:
    packed = gzip.compress(b'{"name":"Ada","from_a_newer_app":1}')

    accepted = app.test_client().post("/people", data=packed, headers={"Content-Encoding": "gzip"})
    with pytest.raises(Malformed):
        app.test_client().post("/people", data=b'{"name":"Ada","name":"Eve"}')

    assert (accepted.status_code, accepted.json) == (201, {"name": "Ada"})


def test_an_empty_body_is_an_empty_object(app: Flask) -> None:
    client = app.test_client()

    assert client.post("/claim").json == {}
    assert client.post("/people").status_code == 422


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("zstd, gzip", "zstd"),
        ("gzip", "gzip"),
        ("gzip, zstd;q=0.1", "gzip"),
        ("br", None),
        ("", None),
        ("gzip;q=0", None),
    ],
)
def test_a_long_answer_is_packed_as_the_client_likes(app: Flask, accept: str, encoding: str | None) -> None:
    got = app.test_client().get("/long", headers={"Accept-Encoding": accept})

    unpack = {"zstd": zstandard.ZstdDecompressor().decompress, "gzip": gzip.decompress, None: bytes}[encoding]
    assert got.headers.get("Content-Encoding") == encoding
    assert json.loads(unpack(got.data)) == {"text": "x" * 5_000}
    assert int(got.headers["Content-Length"]) == len(got.data)
    assert (got.headers["Vary"], got.headers["Cache-Control"], got.headers["ETag"]) == (
        "Accept-Encoding",
        "no-store",
        '"7"',
    )


def test_a_short_answer_stays_plain_and_writes_decimals_as_they_stand(app: Flask) -> None:
    got = app.test_client().get("/short", headers={"Accept-Encoding": "gzip"})

    assert got.data == b'["2.500","1000"]'
    assert "Content-Encoding" not in got.headers
    assert got.headers["Cache-Control"] == "no-cache"
