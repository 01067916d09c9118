"""The proxy: the address stays while one service follows another, and nobody gets an error in between."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from everloop.adapters.service import free_port
from everloop.domain.errors import StackError
from everloop.domain.spec import ServingSpec
from serving.proxy import Proxy, haproxy

PROGRAM = haproxy()
SERVING = ServingSpec(timeout_seconds=10, max_body_bytes=1000)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="HAProxy is not installed")


class Backend:
    """A service that answers its name; a request for /wait waits until it is let go."""

    def __init__(self, name: str) -> None:
        self.go_on, self.inside = threading.Event(), threading.Event()
        backend = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def do_GET(self) -> None:
                if self.path == "/wait":
                    backend.inside.set()
                    backend.go_on.wait(20)
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Afterwards nothing listens there."""
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def backend() -> Iterator[Callable[[str], Backend]]:
    made: list[Backend] = []

    def start(name: str) -> Backend:
        made.append(Backend(name))
        return made[-1]

    yield start
    for one in made:
        one.stop()


class Running:
    """A proxy and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.proxy = Proxy(str(PROGRAM), self.port, folder=folder, serving=SERVING)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.client.close()
    made.proxy.stop()


def test_before_there_is_a_service_the_answer_is_503_as_json(running: Running) -> None:
    """In the form of the service's own errors."""
    answer = running.client.get("/model")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
    rule = "the service is starting; try again"
    assert answer.json() == {"error": {"row": None, "field": None, "rule": rule}}


def test_a_body_over_the_limit_is_413_as_json_and_does_not_reach_the_service(
    running: Running, backend: Callable[[str], Backend]
) -> None:
    """One of the allowed size does."""
    running.proxy.switch("blue", backend("first").port)
    assert running.client.post("/", content=b"x" * 1000).text == "first"
    answer = running.client.post("/", content=b"x" * 1001)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/json")
    rule = "the body is larger than serving.max_body_bytes allows; split the request"
    assert answer.json() == {"error": {"row": None, "field": None, "rule": rule}}


def test_after_a_switch_every_request_goes_to_the_other_place(
    running: Running, backend: Callable[[str], Backend]
) -> None:
    """Back and forth, on one connection of the client's."""
    running.proxy.switch("blue", backend("first").port)
    assert running.client.get("/").text == "first"
    running.proxy.switch("green", backend("second").port)
    assert {running.client.get("/").text for _ in range(5)} == {"second"}
    running.proxy.switch("blue", backend("third").port)
    assert {running.client.get("/").text for _ in range(5)} == {"third"}


def test_a_request_that_is_being_answered_is_counted_and_finished_after_the_switch(
    running: Running, backend: Callable[[str], Backend]
) -> None:
    """The keeper waits for it before it stops the old service."""
    first, second = backend("first"), backend("second")
    running.proxy.switch("blue", first.port)
    answers: list[str] = []
    url = f"http://127.0.0.1:{running.port}/wait"
    asking = threading.Thread(target=lambda: answers.append(httpx.get(url, timeout=20).text))
    asking.start()
    assert first.inside.wait(20)
    running.proxy.switch("green", second.port)
    assert running.client.get("/").text == "second"
    assert (running.proxy.in_flight("blue"), running.proxy.in_flight("green")) == (1, 0)
    first.go_on.set()
    asking.join(20)
    assert answers == ["first"]
    while running.proxy.in_flight("blue"):
        time.sleep(0.002)
    running.proxy.close("blue")
    assert running.client.get("/").text == "second"


def test_no_request_fails_while_services_follow_each_other(running: Running, backend: Callable[[str], Backend]) -> None:
    """Whatever the moment."""
    backends = [backend(str(number)) for number in range(4)]
    running.proxy.switch("blue", backends[0].port)
    done, found = threading.Event(), []

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=20) as client:
            while not done.is_set():
                found.append(client.get("/"))

    asking = threading.Thread(target=ask)
    asking.start()
    for number, next_ in enumerate(backends[1:]):
        seen = len(found)
        while len(found) < seen + 20:
            assert asking.is_alive()
            time.sleep(0.002)
        running.proxy.switch("green" if number % 2 == 0 else "blue", next_.port)
    while found[-1].text != "3":
        assert asking.is_alive()
        time.sleep(0.002)
    done.set()
    asking.join(20)
    assert {answer.status_code for answer in found} == {200}
    names = [answer.text for answer in found]
    assert names == sorted(names)


def test_a_port_that_is_taken_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    """And nothing is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"HAProxy does not start on port {port}: .+"):
            Proxy(str(PROGRAM), port, folder=tmp_path, serving=SERVING)


def test_a_port_that_another_proxy_holds_is_an_error_too(running: Running, tmp_path: Path) -> None:
    """The system would let both listen, and requests would go to either."""
    folder = tmp_path / "other"
    folder.mkdir()
    second = None
    try:
        with pytest.raises(StackError, match=f"HAProxy does not start on port {running.port}"):
            second = Proxy(str(PROGRAM), running.port, folder=folder, serving=SERVING)
    finally:
        if second is not None:
            second.stop()


def test_a_stopped_proxy_is_gone_and_can_be_stopped_again(tmp_path: Path) -> None:
    """Its socket too."""
    running = Running(tmp_path)
    running.proxy.stop()
    running.proxy.stop()
    assert running.proxy.process.poll() is not None
    with pytest.raises(httpx.ConnectError):
        running.client.get("/")
