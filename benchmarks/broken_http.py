"""Strategies that break what is around a body: methods, paths, headers, lengths, chunks, and requests that never end."""

from __future__ import annotations

from hypothesis import strategies as st

from benchmarks.broken_rows import Draw, Kind, Recorded, body_of, draw_items, pairs_of, path_of
from benchmarks.wire import Attempt, request

METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", "BREW", "post", "P@ST"]
PATHS = [
    *(
        "/",
        "/predict/",
        "//predict",
        "/Predict",
        "/predict%00",
        "/%70redict",
        "/predict?a=%ff",
        "/predict;a",
        "/predict#a",
    ),
    *("/predict%", "/pr\u00e9dict", "predict", "*", "/..", "/../predict", "/%2e%2e/etc/passwd", "/schema.json"),
    *("/static_content/../../../../etc/passwd", "/static_content/%2e%2e/%2e%2e/x", "/static_content/none"),
    *(
        "/static_content/",
        "/model",
        "/docs.json",
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "http://127.0.0.1/predict",
    ),
    *("/" + "a" * 5_000, "/" + "a" * 50_000),
]
UPGRADES = [
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + b"dGhlIHNhbXBsZSBub25jZQ==",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Connection: Upgrade\r\nUpgrade: h2c",
]
HEADERS = [
    *(b"Content-Encoding: " + value for value in (b"gzip", b"identity", b"br, gzip", b"\xff", b"")),
    *(
        b"X-Request-ID: " + value
        for value in (b'\xff\xfe"\\', b"a\0b", b"a" * 65, b'"},{"', b"a\r\n b", b"a\r\nX-Request-ID: b")
    ),
    *(b"Content-Type: " + value for value in (b"text/plain", b"\xff", b"", b"application/json; charset=utf-16")),
    *(b"X-Long: " + b"a" * size for size in (7_000, 60_000)),
    b"\r\n".join(b"X-%d: a" % at for at in range(300)),
    *(b"Expect: 100-continue", b"Expect: nothing", b"Authorization: Bearer \xff", b"Cookie: " + b"a=b;" * 500),
    *(b": empty", b"no colon", b"\xff: a", b"Host: \0", b"Accept: image/png", b"Accept-Encoding: br"),
]
LENGTHS: list[str | int] = [-1, "+10", "1e3", "0x10", "ten", "", " ", "1, 2", 10**9, 10**25, "9" * 400, 0, 1]
_HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def kinds_of_http(recorded: Recorded) -> dict[str, Kind]:
    """Every way to break what is around a body, and its part of 100 requests."""
    kinds = {"method": (2.0, _method), "path": (2.0, _path), "header": (3.0, _header), "framing": (3.0, _framing)}
    return {name: Kind(share, st.composite(make)(name, recorded)) for name, (share, make) in kinds.items()}


def slow_attempts(recorded: Recorded) -> list[Attempt]:
    """Requests whose rest never comes; the service must say so, or close."""
    body = body_of("rows", [pairs_of(recorded.rows[0])])
    wires = {
        "no body": request("/predict", b"", length=10),
        "a short body": request("/predict", body, length=len(body) + 10),
        "a short body of labels": request("/labels", body[:-5], length=len(body)),
        "an open chunk": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\nab" % len(body),
        "no last chunk": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body),
        "half a head": _HEAD + b"Content-Le",
    }
    return [Attempt(f"slow: {name}", wire, "refuse", alone=True, may_close=True) for name, wire in wires.items()]


def _method(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    body = draw(st.sampled_from([b"", body_of("rows", [pairs_of(recorded.rows[0])])]))
    path = draw(st.sampled_from(["/predict", "/labels", "/model", "/docs.json", "/livez", "/metrics", "/", "/none"]))
    method = draw(st.sampled_from(METHODS))
    return Attempt(kind, request(path, body, method=method), "any", alone=True)


def _path(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    odd = st.text(max_size=30).map(lambda found: "/" + found)
    method, path = draw(st.sampled_from(["GET", "POST"])), draw(st.sampled_from(PATHS) | odd)
    body = b"" if method == "GET" else body_of("rows", [pairs_of(recorded.rows[0])])
    return Attempt(kind, request(path, body, method=method), "any", alone=True)


def _header(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    if draw(st.integers(0, 9)) == 0:
        upgrade = draw(st.sampled_from(UPGRADES)) + b"\r\n"
        path = draw(st.sampled_from(["/predict", "/model", "/none", "/"]))
        return Attempt(kind, request(path, b"", method="GET", headers=upgrade), "any", alone=True)
    name, items = draw_items(draw, recorded)
    header = draw(st.sampled_from(HEADERS) | st.binary(max_size=60).map(lambda found: b"X-Odd: " + found))
    return Attempt(kind, request(path_of(name), body_of(name, items), headers=header + b"\r\n"), "any", alone=True)


def _framing(draw: Draw, kind: str, recorded: Recorded) -> Attempt:
    body = body_of("rows", [pairs_of(draw(st.sampled_from(recorded.rows)))])
    shorter, noise = draw(st.integers(0, len(body) - 1)), draw(st.binary(min_size=1, max_size=60))
    wires = [request("/predict", body, length=length) for length in (*LENGTHS, shorter)]
    wires += [request("/predict", body, headers=b"Content-Length: 7\r\n"), noise + b"\r\n\r\n"]
    return Attempt(kind, draw(st.sampled_from([*wires, *_odd_chunks(body), *_odd_heads(body)])), "any", alone=True)


def _odd_chunks(body: bytes) -> list[bytes]:
    whole, chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), _HEAD + b"Transfer-Encoding: chunked\r\n"
    single = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    chunks = [whole, single, b"zz\r\n", b"-1\r\n", b"f" * 40 + b"\r\n", b"0\r\n\r\n", b"2\r\nabc\r\n0\r\n\r\n"]
    wires = [chunked + b"\r\n" + found for found in chunks]
    wires.append(chunked + b"Content-Length: 3\r\n\r\n" + whole)
    return wires + [
        _HEAD + b"Transfer-Encoding: %s\r\n\r\n%s" % (name, whole) for name in (b"gzip, chunked", b"odd", b"")
    ]


def _odd_heads(body: bytes) -> list[bytes]:
    lines = [b"GET /model", b"POST /predict HTTP/9.9", b"POST  /predict HTTP/1.1", b"GET /model HTTP/1.1\r\n a: b"]
    lines += [
        b"\x16\x03\x01\x02\x00",
        b"GET /model HTTP/1.1",
        b"\r\n\r\nGET /model HTTP/1.1",
        b"GET /model HTTP/1.1\nHost: a",
    ]
    old = b"POST /predict HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    return [*(line + b"\r\n\r\n" for line in lines), old]
