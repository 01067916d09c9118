"""Valid requests, and strategies that break them: a way a function, each with what a sound service answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from benchmarks.wire import Attempt, request

Pairs = list[tuple[str, str]]
"""A JSON object whose values are raw text, so that what JSON does not allow can stand in it."""
Draw = Callable[[st.SearchStrategy[Any]], Any]

NOT_NUMBERS = ["NaN", "Infinity", "-Infinity", "nan", "1e999", "-1e999", "+1", "01", ".5", "1.", "0x10", "1_0", "--1"]
WRONG_TYPES = ['"text"', '"1"', '""', "true", "false", "[]", "[1]", "{}", '{"a":1}', '"NaN"', '"\\u0000"']
EMPTIES = ["", " ", "\n", "{}", "[]", "null", "0", '""', "{", '{"%s":[]}', '{"%s":null}', '{"%s":{}}', '{"%s":[null]}']
EMPTIES += ['{"%s":[{}]}', '{"%s":[[]]}', '{"%s":""}', '{"":[]}', '{"%s":[],}', '{"%s"}', '[{"%s":[]}]']
ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp037"]
BAD_TEXTS = [
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf5\x80\x80\x80",
    b"\xe9",
    b"\x80",
    b"\0",
    b"\x1f",
    b"\n",
    b"\\u12",
]
SURROGATES = ["\\ud800", "\\udfff", "\\udc00\\ud800", "\\ud800\\ud800", "\\ud83dx", "\\ud800\\u0041"]


@dataclass(frozen=True)
class Recorded:
    """What is known to be valid: rows as recorded, their features that may not be null, and the limits of the service."""

    rows: Sequence[dict[str, Any]]
    required: Sequence[str]
    time: str
    max_rows: int
    max_body_bytes: int


@dataclass(frozen=True)
class Kind:
    """One way to break a request, and its part of all requests."""

    share: float
    strategy: st.SearchStrategy[Attempt]


def draw_attempts(kinds: dict[str, Kind], count: int, *, seed: int) -> list[Attempt]:
    """`count` requests or a few more, by kind; the same for the same seed."""
    shares = sum(kind.share for kind in kinds.values())
    found: list[Attempt] = []
    for position, kind in enumerate(kinds.values()):
        found += _draw(kind.strategy, math.ceil(count * kind.share / shares), seed=seed * 1_000 + position)
    return found


def kinds_of_bodies(recorded: Recorded) -> dict[str, Kind]:
    """The valid requests, and every way to break a body; the shares are of 100 with those of benchmarks/broken_http.py."""
    kinds = {
        "valid": (25.0, _valid), "wrong type": (6, _wrong_type), "null": (3, _null), "not a number": (6, _not_a_number),
        "huge number": (6, _huge_number), "out of range": (3, _out_of_range), "time": (4, _time),
        "deep nesting": (3, _deep), "duplicate keys": (4, _duplicate), "missing field": (4, _missing),
        "extra field": (4, _extra), "empty": (3, _empty), "truncated": (4, _truncated), "mutated": (6, _mutated),
        "wrong encoding": (4, _encoded), "bad text": (4, _bad_text), "surrogate": (2, _surrogate),
        "any bytes": (2, _any_bytes), "any JSON": (4, _any_json), "rows over limit": (0.1, _too_many),
        "body over limit": (0.1, _too_large),
    }  # fmt: skip
    return {name: Kind(share, st.composite(make)(name, recorded)) for name, (share, make) in kinds.items()}


def _draw(strategy: st.SearchStrategy[Attempt], count: int, *, seed: int) -> list[Attempt]:
    found: list[Attempt] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(strategy)
    def collect(attempt: Attempt) -> None:
        found.append(attempt)

    collect()
    return (found * math.ceil(count / len(found)))[:count]  # a small space ends early


def pairs_of(row: dict[str, Any]) -> Pairs:
    """The row as names and values in JSON."""
    return [(json.dumps(name), json.dumps(value)) for name, value in row.items()]


def _object(pairs: Pairs) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


def body_of(name: str, items: Sequence[Pairs]) -> bytes:
    """A body of rows or of labels."""
    return f'{{"{name}":[{",".join(map(_object, items))}]}}'.encode("utf-8", "surrogatepass")


def draw_items(draw: Draw, recorded: Recorded, most: int = 3) -> tuple[str, list[Pairs]]:
    """Valid rows, or valid labels: "rows" or "labels", and the items."""
    count, start = draw(st.integers(1, most)), draw(st.integers(0, len(recorded.rows) - 1))
    if draw(st.booleans()):
        return "rows", [pairs_of(recorded.rows[(start + at) % len(recorded.rows)]) for at in range(count)]
    prediction_id = draw(st.none() | st.text("abcdef0123456789-", min_size=1, max_size=40))
    named = [{"key": start + at} if prediction_id is None else {"prediction_id": prediction_id} for at in range(count)]
    return "labels", [pairs_of({"label": start + at, **name}) for at, name in enumerate(named)]


def path_of(name: str) -> str:
    """Where rows, or labels, are sent."""
    return "/predict" if name == "rows" else "/labels"


def _attempt(kind: str, name: str, body: bytes, expects: Any, **more: Any) -> Attempt:
    return Attempt(kind, request(path_of(name), body), expects, **more)


def _with_field(draw: Draw, recorded: Recorded, change: Callable[[Pairs, int], Pairs]) -> tuple[str, bytes]:
    """A valid body in one of whose items `change` was applied at a field that is required."""
    name, items = draw_items(draw, recorded)
    at = draw(st.integers(0, len(items) - 1))
    field = draw(st.sampled_from(recorded.required)) if name == "rows" else "label"
    position = [pair[0] for pair in items[at]].index(json.dumps(field))
    items[at] = change(items[at], position)
    return name, body_of(name, items)


def _replaced(value: str) -> Callable[[Pairs, int], Pairs]:
    return lambda pairs, at: [*pairs[:at], (pairs[at][0], value), *pairs[at + 1 :]]


def _valid(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    name, items = draw_items(draw, recorded, most=20)
    return _attempt(f"{kind} {name}", name, body_of(name, items), "accept", items=len(items))


def _wrong_type(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    value = draw(st.sampled_from(WRONG_TYPES) | st.text(max_size=50).map(json.dumps))
    return _attempt(kind, *_with_field(draw, recorded, _replaced(value)), "refuse")


def _null(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    return _attempt(kind, *_with_field(draw, recorded, _replaced("null")), "refuse")


def _not_a_number(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    return _attempt(kind, *_with_field(draw, recorded, _replaced(draw(st.sampled_from(NOT_NUMBERS)))), "refuse")


def _huge_number(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    digits = draw(st.sampled_from([18, 19, 20, 25, 30, 38, 39, 310, 5_000]) | st.integers(15, 400))
    whole = draw(st.integers(1, 9).map(str)) * digits
    shape = draw(st.sampled_from(["{}", "{}", "{}", "-{}", "{}.0", "0.{}", "1e{:.3}", "1e-{:.3}", "{}e-{}"]))
    value = shape.format(whole, digits)
    expects = "refuse" if shape in ("{}", "-{}") and digits >= 40 else "any"
    return _attempt(kind, *_with_field(draw, recorded, _replaced(value)), expects)


def _out_of_range(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    value = draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70))
    return _attempt(kind, *_with_field(draw, recorded, _replaced(json.dumps(value))), "any")


def _time(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    odd = ["", "now", "2012-02-30T00:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59", "2012-06-30T23:59:60"]
    odd += ["1900-01-01T00:00:00+23:59", "2200-12-31T23:59:59.9999999-23:59", "2012-01-01", "2012-1-1T0:0:0"]
    moment = draw(st.sampled_from(odd) | st.datetimes().map(lambda found: found.isoformat()) | st.text(max_size=40))
    if draw(st.booleans()):
        row = {**draw(st.sampled_from(recorded.rows)), recorded.time: moment}
        return _attempt(kind, "rows", body_of("rows", [pairs_of(row)]), "any")
    label = {"label": 1.5, "prediction_id": "a", "observed_at": moment}
    return _attempt(kind, "labels", body_of("labels", [pairs_of(label)]), "any")


def _deep(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    depth = draw(st.sampled_from([100, 1_000, 10_000, 10_000, 10_000, 100_000]))
    opened, closed = draw(st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ("[", "")]))
    nested = opened * depth + "1" + closed * depth
    if draw(st.booleans()):
        return _attempt(kind, *_with_field(draw, recorded, _replaced(nested)), "refuse")
    whole = draw(st.sampled_from(["{}", '{{"rows":{}}}', '{{"labels":{}}}', '{{"rows":[],"a":{}}}', '{{"a":{}}}']))
    return _attempt(kind, draw(st.sampled_from(["rows", "labels"])), whole.format(nested).encode(), "refuse")


def _duplicate(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    again = draw(st.sampled_from(["0", "1", "0.5", '"text"', "null", "NaN", "9" * 40]))
    name, body = _with_field(draw, recorded, lambda pairs, at: [*pairs, (pairs[at][0], again)])
    if draw(st.booleans()):
        body = b'{"%s":[],%s' % (name.encode(), body[1:])
    return _attempt(kind, name, body, "any")


def _missing(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    return _attempt(kind, *_with_field(draw, recorded, lambda pairs, at: pairs[:at] + pairs[at + 1 :]), "refuse")


def _extra(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    extra = (json.dumps("+" + draw(st.text(max_size=50))), draw(st.sampled_from(["0", "null", "[]", '"a"'])))
    return _attempt(kind, *_with_field(draw, recorded, lambda pairs, at: [*pairs[:at], extra, *pairs[at:]]), "refuse")


def _empty(draw: Draw, kind: str, recorded: Recorded) -> Attempt:  # noqa: ARG001 - every kind is made alike
    name = draw(st.sampled_from(["rows", "labels"]))
    return _attempt(kind, name, draw(st.sampled_from(EMPTIES)).replace("%s", name).encode(), "refuse")


def _truncated(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    name, items = draw_items(draw, recorded)
    body = body_of(name, items)
    return _attempt(kind, name, body[: draw(st.integers(0, len(body) - 1))], "refuse")


def _mutated(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    name, items = draw_items(draw, recorded)
    body = bytearray(body_of(name, items))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return _attempt(kind, name, bytes(body), "any")


def _encoded(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    name, items = draw_items(draw, recorded)
    if draw(st.booleans()):
        return _attempt(kind, name, body_of(name, items).decode().encode(draw(st.sampled_from(ENCODINGS))), "refuse")
    items[0].append(('"caf\u00e9"', "1"))
    return _attempt(kind, name, body_of(name, items).decode().encode("latin-1"), "refuse")


def _bad_text(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    bad = draw(st.sampled_from(BAD_TEXTS))
    label = b'{"labels":[{"label":1,"prediction_id":"a%s"}]}' % bad
    row = body_of("rows", [pairs_of(draw(st.sampled_from(recorded.rows)))]).replace(b'":', b'%s":' % bad, 1)
    name, body = draw(st.sampled_from([("labels", label), ("rows", row)]))
    return _attempt(kind, name, body, "refuse")


def _surrogate(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    bad = draw(st.sampled_from(SURROGATES))
    name, items = draw_items(draw, recorded)
    at = draw(st.integers(0, len(items) - 1))
    place = draw(
        st.sampled_from([(f'"{bad}"', "1"), ('"prediction_id"', f'"{bad}"'), (f'"{recorded.time}"', f'"{bad}"')])
    )
    items[at] = [pair for pair in items[at] if pair[0] != place[0]] + [place]
    return _attempt(kind, name, body_of(name, items), "refuse")


def _any_bytes(draw: Draw, kind: str, recorded: Recorded) -> Attempt:  # noqa: ARG001
    return _attempt(kind, draw(st.sampled_from(["rows", "labels"])), draw(st.binary(max_size=400)), "refuse")


def _any_json(draw: Draw, kind: str, recorded: Recorded) -> Attempt:  # noqa: ARG001
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    tree = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner), max_leaves=9)
    name = draw(st.sampled_from(["rows", "labels"]))
    wrapped = draw(st.sampled_from([lambda found: found, lambda found: {name: found}, lambda found: {name: [found]}]))
    return _attempt(kind, name, json.dumps(wrapped(draw(tree))).encode("utf-8", "surrogatepass"), "refuse")


def _too_many(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    count = recorded.max_rows + draw(st.integers(1, 500))
    if draw(st.booleans()):
        return _attempt(kind, "rows", body_of("rows", [pairs_of(recorded.rows[0])] * count), "refuse")
    return _attempt(kind, "labels", body_of("labels", [pairs_of({"label": 1, "key": 1})] * count), "refuse")


def _too_large(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    body = b" " * (recorded.max_body_bytes + draw(st.sampled_from([1, 1_000, 100_000, 5_000_000])))
    if draw(st.booleans()):
        return _attempt(kind, draw(st.sampled_from(["rows", "labels"])), body, "refuse", alone=True)
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Attempt(kind, head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), "refuse", alone=True)
