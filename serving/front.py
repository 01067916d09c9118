"""The front of a worker: routes, doors, limits and errors, on bare ASGI.

It stands before BentoML's own application, whose middleware costs more than a prediction, and hands on to it only what is
BentoML's: health, metrics and the page of the documentation. Every other path is refused here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from uuid import uuid4

import orjson

from everloop.domain.spec import ServingSpec
from serving.contract import BadRequest
from serving.doors import Keys

log = logging.getLogger("everloop.serving")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[bytes, str], Awaitable[bytes]]
"""From a body and a request id to a JSON answer."""

HEALTH = ("/livez", "/readyz", "/healthz")
HOSTED = (*HEALTH, "/metrics", "/")
HOSTED_METHODS = ("GET", "HEAD")
DISCARD_SECONDS, DISCARD_BYTES = 2.0, 64_000_000
_JSON = (b"content-type", b"application/json")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Front:
    """An ASGI application over `routes`: path → method → handler."""

    def __init__(
        self,
        host: App,
        routes: Mapping[str, Mapping[str, Handler]],
        *,
        serving: Callable[[], ServingSpec],
        keys: Callable[[], Keys],
        on_error: Callable[[str], None],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._routes = routes
        self._serving, self._keys, self._on_error = serving, keys, on_error
        self._on_close = on_close
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
            return
        if scope["type"] == "lifespan":
            await self._host(scope, self._closing(receive), send)
            return
        request_id = _request_id(scope["headers"])
        path = scope["path"]
        try:
            if path not in HEALTH and not self._keys().admit(scope["headers"]):
                raise BadRequest("an API key is required: Authorization: Bearer <key>, or X-API-Key: <key>", status=401)
            methods = self._routes.get(path)
            if methods is None:
                await self._pass_on(scope, receive, send)
                return
            handler = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
            if handler is None:
                raise BadRequest(f"this path takes {', '.join(methods)}", status=405)
            status, answer = 200, await self._handle(handler, scope, receive, request_id)
        except BadRequest as exc:
            status, answer = exc.status, self._refuse(exc, request_id)
            if exc.is_unread:
                await _discard(receive)
        except _Disconnected:
            return
        except Exception:  # noqa: BLE001 - the client gets a sentence, the log the trace
            status, answer = 500, self._fail(request_id)
        await _send(
            send, status, answer, request_id, allow=status == 405 and ", ".join(self._routes.get(path, HOSTED_METHODS))
        )

    def _closing(self, receive: Receive) -> Receive:
        """`receive`, which does what is to be done at the end before it tells of it; uvicorn has answered all requests then."""

        async def closing() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._on_close)
            return message

        return closing

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """BentoML's answer, if the path is one of its own and it does not refuse.

        Raises:
            BadRequest: it is not, or BentoML refuses.
        """
        path = scope["path"]
        if not _is_hosted(path):
            known = ", ".join(dict.fromkeys((*self._routes, *HOSTED)))
            raise BadRequest(f"there is nothing at this path; there is {known}", status=404)
        if scope["method"] not in HOSTED_METHODS:
            raise BadRequest(f"this path takes {', '.join(HOSTED_METHODS)}", status=405)
        refused = 0

        async def relay(message: MutableMapping[str, Any]) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = message["status"]
            if not refused:
                await send(message)

        await self._host(scope, receive, relay)
        if refused:
            raise BadRequest(f"nothing can be had at {path}", status=refused)

    async def _handle(self, handler: Handler, scope: Scope, receive: Receive, request_id: str) -> bytes:
        if scope["method"] != "POST":  # health and description are answered also when all places are taken
            return await handler(b"", request_id)
        limits, busy = self._serving(), self._in_flight
        if busy >= limits.max_concurrent:
            rule = f"{busy} requests are being answered, at most {limits.max_concurrent} at a time; try again"
            raise BadRequest(rule, status=429, limit="serving.max_concurrent")
        self._in_flight += 1
        try:
            body = await _read_body(scope, receive, limits)
            return await handler(body, request_id)
        finally:
            self._in_flight -= 1

    def _refuse(self, exc: BadRequest, request_id: str) -> bytes:
        self._on_error(exc.kind)
        log.info("refused: %s", exc, extra={"event": "refused request", "status": exc.status, "request_id": request_id})
        return orjson.dumps({"error": {**exc.detail, "request_id": request_id}})

    def _fail(self, request_id: str) -> bytes:
        self._on_error("internal")
        log.exception("the request failed", extra={"event": "failed request", "status": 500, "request_id": request_id})
        rule = "the service failed on this request; its log says why, under this request id"
        return orjson.dumps({"error": {**BadRequest(rule).detail, "request_id": request_id}})


class _Disconnected(Exception):
    """The client went away before its body was complete."""


async def _read_body(scope: Scope, receive: Receive, limits: ServingSpec) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limits.max_body_bytes:
            raise _too_large(limits, is_unread=True)
        if name == b"content-encoding" and value.lower() != b"identity":
            raise BadRequest("compressed bodies are not taken; send plain JSON", status=415)
    try:
        async with asyncio.timeout(limits.timeout_seconds):
            return await _receive_all(receive, limits)
    except TimeoutError:
        rule = f"the body did not arrive within {limits.timeout_seconds:g} s"
        raise BadRequest(rule, status=408, limit="serving.timeout_seconds") from None


async def _discard(receive: Receive) -> None:
    """Read what is left of a body that is too large: many clients look at the answer only after they have sent all."""
    left = DISCARD_BYTES
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    answer = orjson.dumps({"error": BadRequest("this service speaks plain HTTP, no WebSocket").detail})
    await send({"type": "websocket.http.response.start", "status": 404, "headers": [_JSON]})
    await send({"type": "websocket.http.response.body", "body": answer})


async def _receive_all(receive: Receive, limits: ServingSpec) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        body += message.get("body", b"")
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits, is_unread=bool(message.get("more_body")))
        if not message.get("more_body"):
            return body


def _too_large(limits: ServingSpec, *, is_unread: bool) -> BadRequest:
    rule = f"the body is larger than {limits.max_body_bytes} bytes; split the request"
    return BadRequest(rule, status=413, limit="serving.max_body_bytes", is_unread=is_unread)


async def _send(send: Send, status: int, body: bytes, request_id: str, *, allow: str | bool = False) -> None:
    headers = [_JSON, (b"content-length", str(len(body)).encode()), (b"x-request-id", request_id.encode())]
    if allow:
        headers.append((b"allow", str(allow).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", b"1"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return uuid4().hex


def _is_hosted(path: str) -> bool:
    return path in HOSTED or path.startswith("/static_content/")
