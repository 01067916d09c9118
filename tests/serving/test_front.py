"""The front: what is not ours goes to the host, what breaks a rule gets a status and a sentence, nothing gets a trace."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from everloop.domain.spec import ServingSpec
from serving.contract import BadRequest
from serving.doors import Keys
from serving.front import Front, Receive, Scope, Send

LIMITS = ServingSpec(max_body_bytes=1000, max_concurrent=2, timeout_seconds=0.2)
KEYS = Keys(["new", "old"])


async def host(scope: Scope, receive: Receive, send: Send) -> None:
    """The application behind: it says that it was asked."""
    if scope["type"] != "http":
        await send({"type": "host", "saw": scope["type"]})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the host"})


async def echo(body: bytes, request_id: str) -> bytes:
    """The body and the request id."""
    return json.dumps({"body": body.decode(), "request_id": request_id}).encode()


async def refuse(_: bytes, __: str) -> bytes:
    """A refusal of the contract."""
    raise BadRequest("too warm", row=3, field="temp")


async def fail(_: bytes, __: str) -> bytes:
    """What must never happen, with words that must never get out."""
    raise RuntimeError("/home/ada/secret/model.skops is broken")


class Fronted:
    """A front with its errors counted, and a client of it."""

    def __init__(self, *, keys: Keys | None = None, **handlers: Callable[[bytes, str], Awaitable[bytes]]) -> None:
        self.errors: list[str] = []
        posts = {"echo": echo, "refuse": refuse, "fail": fail, **handlers}
        routes = {f"/{name}": {"POST": handler} for name, handler in posts.items()}
        self.app = Front(
            host,
            {**routes, "/readyz": {"GET": echo}},
            serving=lambda: LIMITS,
            keys=lambda: keys or Keys([]),
            on_error=self.errors.append,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service")

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer to one request."""
        return asyncio.run(self.client.request(method, path, **options))


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, which is JSON and names the request id of its header."""
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert error.pop("request_id") == answer.headers["x-request-id"]
    return error


def rule(text: str, **more: Any) -> dict[str, Any]:
    """An error that is about no row and no field."""
    return {"row": None, "field": None, "rule": text} | more


def test_a_route_answers_json_with_its_length() -> None:
    """The handler's bytes go out as they are."""
    answer = Fronted().ask("POST", "/echo", content=b"hello")
    assert (answer.status_code, answer.json()["body"]) == (200, "hello")
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/metrics", "/", "/static_content/index.css"])
def test_what_is_the_hosts_goes_to_the_host(path: str) -> None:
    """Health, metrics and the page of the documentation."""
    assert Fronted().ask("GET", path).text == "the host"


def test_what_is_no_request_goes_to_the_host() -> None:
    """Its start and end, above all."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Fronted().app({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "host", "saw": "lifespan"}]


def test_what_is_the_hosts_takes_no_other_method() -> None:
    """It is refused here, in our words."""
    answer = Fronted().ask("POST", "/metrics")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert error_of(answer) == rule("this path takes GET, HEAD")


def test_a_refusal_of_the_hosts_is_in_our_words() -> None:
    """Its page would name what it is made of."""

    async def refusing(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"<h1>Framework 1.2</h1>"})

    fronted = Fronted()
    fronted.app._host = refusing
    answer = fronted.ask("GET", "/static_content/nothing.css")
    assert answer.status_code == 404
    assert error_of(answer) == rule("nothing can be had at /static_content/nothing.css")


def test_a_head_is_answered_as_a_get() -> None:
    """A probe may want no body."""
    assert Fronted().ask("HEAD", "/readyz").status_code == 200
    assert Fronted().ask("HEAD", "/echo").status_code == 405


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
def test_a_websocket_is_refused(extensions: dict[str, Any]) -> None:
    """With a sentence, where the server can carry one."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/predict", "headers": [], "extensions": extensions}
    asyncio.run(Fronted().app(scope, None, send))  # type: ignore[arg-type]
    if extensions:
        assert sent[0]["status"] == 404
        assert json.loads(sent[1]["body"])["error"]["rule"] == "this service speaks plain HTTP, no WebSocket"
    else:
        assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("path", ["/predict/", "/schema", "//metrics", "/static_content", "/echo/../fail"])
def test_any_other_path_is_404_and_says_what_there_is(path: str) -> None:
    """Nothing of the host's can be reached by accident."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": "GET", "headers": []}
    asyncio.run(Fronted().app(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 404
    said = json.loads(sent[1]["body"])["error"]["rule"]
    assert said.startswith("there is nothing at this path; there is /echo, /refuse, /fail, /readyz, ")


def test_no_path_is_named_twice_to_who_has_lost_the_way() -> None:
    """The 404 lists every path once."""
    said = Fronted().ask("GET", "/nowhere").json()["error"]["rule"]
    paths = said.rpartition("there is ")[2].split(", ")
    assert len(paths) == len(set(paths))


def test_another_method_is_405_and_says_which() -> None:
    """In words and in the header that HTTP asks for."""
    answer = Fronted().ask("GET", "/echo")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert error_of(answer) == rule("this path takes POST")


def test_a_refusal_names_row_field_and_rule_and_is_counted() -> None:
    """It is the client's to mend."""
    fronted = Fronted()
    answer = fronted.ask("POST", "/refuse")
    assert answer.status_code == 400
    assert error_of(answer) == {"row": 3, "field": "temp", "rule": "too warm"}
    assert fronted.errors == ["contract"]


def test_a_failure_is_500_without_a_word_of_what_is_inside(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a sentence and an id, under which the log has the trace."""
    fronted = Fronted()
    with caplog.at_level(logging.INFO, logger="everloop.serving"):
        answer = fronted.ask("POST", "/fail", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 500
    assert error_of(answer) == rule("the service failed on this request; its log says why, under this request id")
    assert not re.search("Traceback|RuntimeError|secret|home|File", answer.text)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "/home/ada/secret" in str(record.exc_info)
    assert record.request_id == "mine"  # type: ignore[attr-defined]
    assert fronted.errors == ["internal"]


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": "Basic bmV3"}])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/echo"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/nowhere")]
)
def test_without_a_key_everything_is_401_and_says_how(headers: dict[str, str], method: str, path: str) -> None:
    """Also what is not there: who has no key learns nothing."""
    answer = Fronted(keys=KEYS).ask(method, path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert error_of(answer) == rule("an API key is required: Authorization: Bearer <key>, or X-API-Key: <key>")


@pytest.mark.parametrize(
    "headers", [{"X-API-Key": "new"}, {"x-api-key": "old"}, {"Authorization": "Bearer new"}], ids=str
)
def test_with_any_of_the_keys_everything_is_open(headers: dict[str, str]) -> None:
    """During a rotation old and new clients are served."""
    fronted = Fronted(keys=KEYS)
    assert fronted.ask("POST", "/echo", headers=headers).status_code == 200
    assert fronted.ask("GET", "/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_health_needs_no_key(path: str) -> None:
    """Who asks for it has none: a load balancer, a container's runtime."""
    assert Fronted(keys=KEYS).ask("GET", path).status_code == 200


@pytest.mark.parametrize("sent", ["abc", "A.b_c-9", "x" * 64])
def test_a_well_formed_request_id_is_echoed_and_reaches_the_handler(sent: str) -> None:
    """So that a client finds its request in our log."""
    answer = Fronted().ask("POST", "/echo", headers={"X-Request-ID": sent})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 65, "a b", 'a"b', "a\\b", "ä".encode(), "a/../b", "{}"])
def test_any_other_request_id_is_replaced(sent: Any) -> None:
    """It goes into a line of the log as it is, so it must not be able to end a string."""
    headers = {} if sent is None else {"X-Request-ID": sent}
    found = Fronted().ask("POST", "/echo", headers=headers).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", found)


TOO_LARGE = rule("the body is larger than 1000 bytes; split the request", limit="serving.max_body_bytes")


def test_a_body_of_the_allowed_size_is_read_and_a_larger_one_is_413() -> None:
    """Told by its length before it is read."""
    fronted = Fronted()
    assert fronted.ask("POST", "/echo", content=b"x" * 1000).status_code == 200
    answer = fronted.ask("POST", "/echo", content=b"x" * 1001)
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert error_of(answer) == TOO_LARGE
    assert fronted.errors == ["serving.max_body_bytes"]


def chunks_of(sizes: list[int]) -> Any:
    """A `receive` of a body that comes in chunks without a length; whoever asks again after the last waits forever."""
    left = list(sizes)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"x" * left.pop(0), "more_body": bool(left)}

    return receive, left


async def sent_for(app: Front, receive: Any) -> list[Any]:
    """What a client gets for a body that `receive` gives."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": "/echo", "method": "POST", "headers": []}, receive, send)
    return sent


def test_a_body_that_hides_its_size_is_413_and_its_rest_is_thrown_away() -> None:
    """A chunked body has no length; many clients look at the answer only after they have sent all."""
    receive, left = chunks_of([400] * 250)
    sent = asyncio.run(sent_for(Fronted().app, receive))
    assert sent[0]["status"] == 413
    assert left == []


def test_a_body_without_an_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is thrown away is bounded too."""
    monkeypatch.setattr("serving.front.DISCARD_BYTES", 10_000)
    receive, left = chunks_of([1000] * 1000)
    sent = asyncio.run(sent_for(Fronted().app, receive))
    assert sent[0]["status"] == 413
    assert len(left) > 980


@pytest.mark.parametrize("sizes", [[100], [600, 600]], ids=["too many rows", "too many bytes"])
def test_a_body_that_was_read_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    """There is nothing left to wait for."""
    monkeypatch.setattr("serving.front.DISCARD_SECONDS", 3600)

    async def too_many(_: bytes, __: str) -> bytes:
        raise BadRequest("too many rows", status=413, limit="serving.max_rows")

    receive, _ = chunks_of(sizes)
    fronted = Fronted(echo=too_many)
    (start, _) = asyncio.run(asyncio.wait_for(sent_for(fronted.app, receive), 1))
    assert start["status"] == 413


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP"])
def test_a_compressed_body_is_415(encoding: str) -> None:
    """A small body may be a large one when it is unpacked."""
    answer = Fronted().ask("POST", "/echo", content=b"x", headers={"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert error_of(answer) == rule("compressed bodies are not taken; send plain JSON")


def test_a_body_that_is_called_not_compressed_is_read() -> None:
    """`identity` is the word for it."""
    assert Fronted().ask("POST", "/echo", headers={"Content-Encoding": "identity"}).status_code == 200


async def trickle(app: Front, path: str = "/echo") -> list[Any]:
    """What a client gets that sends the first byte of a body and then nothing."""
    sent: list[Any] = []
    first = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        return first.pop() if first else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "method": "POST", "headers": []}, receive, send)
    return sent


def test_a_body_that_does_not_arrive_is_408() -> None:
    """A client that trickles holds a place for a limited time."""
    start, body = asyncio.run(trickle(Fronted().app))
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    error = json.loads(body["body"])["error"]
    assert (error["rule"], error["limit"]) == ("the body did not arrive within 0.2 s", "serving.timeout_seconds")


def test_a_client_that_goes_away_is_answered_nothing_and_is_no_error() -> None:
    """And its place is free again."""
    fronted, sent = Fronted(), []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    for _ in range(5):
        asyncio.run(fronted.app({"type": "http", "path": "/echo", "method": "POST", "headers": []}, receive, send))
    assert (sent, fronted.errors) == ([], [])
    assert fronted.ask("POST", "/echo").status_code == 200


class Waiting:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0

    async def __call__(self, _: bytes, __: str) -> bytes:
        self.inside += 1
        await self.open.wait()
        return b"{}"


async def with_all_places_taken(ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> Any:
    """The answer to `ask` while two requests, as many as allowed, are being answered; and those two."""
    waiting = Waiting()
    fronted = Fronted(wait=waiting)
    taken = [asyncio.create_task(fronted.client.post("/wait")) for _ in range(2)]
    while waiting.inside < 2:
        await asyncio.sleep(0)
    answer = await ask(fronted.client)
    waiting.open.set()
    return answer, [one.status_code for one in await asyncio.gather(*taken)], await fronted.client.post("/echo")


def test_more_requests_at_a_time_than_allowed_are_429_until_one_is_done() -> None:
    """Those that are inside are answered, and so is who comes back."""
    answer, inside, later = asyncio.run(with_all_places_taken(lambda client: client.post("/echo")))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    said = "2 requests are being answered, at most 2 at a time; try again"
    assert error_of(answer) == rule(said, limit="serving.max_concurrent")
    assert inside == [200, 200]
    assert later.status_code == 200


def test_health_is_told_also_when_all_places_are_taken() -> None:
    """A worker that is busy is not one that is broken, and a probe must be able to tell."""
    answer, *_ = asyncio.run(with_all_places_taken(lambda client: client.get("/readyz")))
    assert answer.status_code == 200


def test_a_refused_request_gives_its_place_back() -> None:
    """However a request ends."""
    fronted = Fronted()
    for path in ("/fail", "/refuse") * 3:
        fronted.ask("POST", path)
    asyncio.run(trickle(fronted.app))
    assert fronted.ask("POST", "/echo").status_code == 200
