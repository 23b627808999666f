"""Merge metadata as one compact JSON text, beside each record.

    {"a": names, "s": stamps, "f": {field: state}, "d": deletion}

`names` lists replicas and systems once, so that everything else holds small integers. `stamps` lists each
(dot, origin, at, system, suspect) once, because a mutation writes several fields under the same one. A field whose only
write stands is the number of its stamp; its value is in the record. Any other state is an object, see `_Encoder.state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.store.text import dumps, loads
from sync.clock import Dot, Origin
from sync.record import MISSING, FieldState, Record, Write

NOBODY = -1  # the place of a dot's replica that is not named


def encode_meta(record: Record) -> str:
    """The merge metadata of `record`, to be read again beside the same values."""
    encoder = _Encoder(record.data)
    fields = {name: encoder.state(name, state) for name, state in record.fields.items()}
    document: dict[str, Any] = {"a": list(encoder.names), "s": list(encoder.stamps), "f": fields}
    if record.deleted is not None:
        document["d"] = encoder.dot(record.deleted)
        document["a"] = list(encoder.names)
    return dumps(document)


def decode_meta(text: str, data: Mapping[str, Any]) -> tuple[dict[str, FieldState], Dot | None]:
    """The field states and the dot of the deletion. data: the record's values."""
    document = loads(text)
    decoder = _Decoder(document["a"], document["s"], data)
    fields = {name: decoder.state(name, state) for name, state in document["f"].items()}
    return fields, decoder.dot(document["d"]) if "d" in document else None


class _Encoder:
    def __init__(self, data: Mapping[str, Any]) -> None:
        self.names: dict[str, int] = {}
        self.stamps: dict[tuple[Any, ...], int] = {}
        self._data = data

    def state(self, name: str, state: FieldState) -> Any:
        """A stamp's number, or an object of what is there.

        o: standing, w: writes, u: dots, k: keys, e: elements, c: case.
        """
        if self._is_plain(name, state):
            return self._stamp(state.writes[0])
        parts = {
            "o": self.dot(state.standing),
            "w": [self._write(write) for write in state.writes],
            "u": [self.dot(dot) for dot in state.dots],
            "k": [[at, self._name(replica), n, place] for at, replica, n, place in state.keys],
            "e": [[element, [self.dot(dot) for dot in dots]] for element, dots in state.elements],
            "c": state.case,
        }
        return {part: value for part, value in parts.items() if value not in ([], None)}

    def _is_plain(self, name: str, state: FieldState) -> bool:
        if len(state.writes) != 1 or state.dots or state.keys or state.elements or state.case is not None:
            return False
        (write,) = state.writes
        return (
            write.dot == state.standing
            and write.was is MISSING
            and name in self._data
            and _same(write.value, self._data[name])
        )

    def _write(self, write: Write) -> list[Any]:
        """Its stamp, then the value if there is one, then what the field showed before if that is known."""
        if write.value is MISSING:
            return [self._stamp(write)] if write.was is MISSING else [self._stamp(write), None, write.was, True]
        return (
            [self._stamp(write), write.value] if write.was is MISSING else [self._stamp(write), write.value, write.was]
        )

    def _stamp(self, write: Write) -> int:
        dot, origin = write.dot, write.origin
        sender = NOBODY if dot.replica is None else self._name(dot.replica)
        origin_name, system = self._name(origin.replica), self._name(write.system)
        stamp = (dot.version, sender, dot.n, origin_name, origin.n, write.at, system, int(write.suspect))
        return self.stamps.setdefault(stamp, len(self.stamps))

    def dot(self, dot: Dot) -> Any:
        if dot.replica is None:
            return dot.version if dot.n == 0 else [dot.version, NOBODY, dot.n]
        return [dot.version, self._name(dot.replica), dot.n]

    def _name(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))


class _Decoder:
    def __init__(self, names: list[str], stamps: list[list[int]], data: Mapping[str, Any]) -> None:
        self._names, self._data = names, data
        self._stamps = [self._stamp(*stamp) for stamp in stamps]

    def state(self, name: str, state: Any) -> FieldState:
        if isinstance(state, int):
            write = Write(self._data[name], *self._stamps[state])
            return FieldState(write.dot, (write,))
        return FieldState(
            standing=self.dot(state["o"]),
            writes=tuple(self._write(*write) for write in state.get("w", ())),
            dots=tuple(self.dot(dot) for dot in state.get("u", ())),
            keys=tuple((at, self._names[replica], n, place) for at, replica, n, place in state.get("k", ())),
            elements=tuple((element, tuple(self.dot(dot) for dot in dots)) for element, dots in state.get("e", ())),
            case=state.get("c"),
        )

    def _write(self, stamp: int, value: Any = MISSING, was: Any = MISSING, absent: bool = False) -> Write:
        return Write(MISSING if absent else value, *self._stamps[stamp], was)

    def _stamp(
        self, version: int, sender: int, n: int, origin: int, origin_n: int, at: int, system: int, suspect: int
    ) -> tuple[Dot, Origin, int, str, bool]:
        dot = Dot(version, None if sender == NOBODY else self._names[sender], n)
        return dot, Origin(self._names[origin], origin_n), at, self._names[system], bool(suspect)

    def dot(self, dot: Any) -> Dot:
        if isinstance(dot, int):
            return Dot(dot)
        version, sender, n = dot
        return Dot(version, None if sender == NOBODY else self._names[sender], n)


def _same(one: Any, other: Any) -> bool:
    """Is it the same scalar? (1 and true are not.) Lists and objects are stored again rather than compared in depth."""
    return type(one) is type(other) and isinstance(one, (str, int, type(None))) and one == other
