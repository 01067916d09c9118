"""Requests as bytes, broken ones too, and a client that sends them as they are and says what came back."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from typing import Literal

HANG_SECONDS = 10.0
Outcome = Literal["answered", "closed", "hang"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request as it goes over the wire, and what a sound service does with it.

    `items` is the number of rows or labels of a valid one. `alone` gets a connection of its own, because what follows a
    request of broken framing would be read as its rest. One that never ends `may_close` without an answer.
    """

    kind: str
    wire: bytes
    expects: Literal["accept", "refuse", "any"]
    items: int = 0
    alone: bool = False
    may_close: bool = False

    @property
    def is_head(self) -> bool:
        """True if the answer has no body by definition."""
        return self.wire.startswith(b"HEAD ")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: status 0 without a complete answer."""

    outcome: Outcome
    status: int
    head: bytes
    body: bytes
    seconds: float


def request(
    path: str, body: bytes, *, method: str = "POST", headers: bytes = b"", length: str | int | None = None
) -> bytes:
    """The bytes of a request; `length` replaces the true Content-Length."""
    declared = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {declared}\r\n"
    return head.encode("utf-8", "surrogatepass") + headers + b"\r\n" + body


class Line:
    """A connection to one port of this machine, kept between requests, opened again when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def exchange(self, attempt: Attempt) -> Reply:
        """What came back; a kept connection that was closed meanwhile is replaced once."""
        if attempt.alone:
            self.close()
        was_kept = self._socket is not None
        reply = self._exchange(attempt)
        if was_kept and reply.outcome == "closed":
            reply = self._exchange(attempt)
        if attempt.alone:
            self.close()
        return reply

    def close(self) -> None:
        """Afterwards no connection is open."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _exchange(self, attempt: Attempt) -> Reply:
        started = time.monotonic()
        outcome: Outcome = "answered"
        status, head, body = 0, b"", b""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), HANG_SECONDS)
            with contextlib.suppress(ConnectionError):  # it may have answered before it had read everything
                self._socket.sendall(attempt.wire)
            reader = _Reader(self._socket, started + HANG_SECONDS)
            status, head, body = reader.answer(has_body=not attempt.is_head)
        except TimeoutError:
            outcome = "hang"
        except (OSError, EOFError, ValueError):
            outcome = "closed"
        if outcome != "answered" or b"\r\nconnection: close" in head.lower():
            self.close()
        return Reply(outcome, status, head, body, time.monotonic() - started)


class _Reader:
    """Reads one answer until `deadline`."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline, self._data = connection, deadline, b""

    def answer(self, *, has_body: bool) -> tuple[int, bytes, bytes]:
        """Status, head and body of the final answer."""
        head = self._until(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 1"):
            head = self._until(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
        status = int(head[9:12])
        if not has_body or status in (204, 304):
            return status, head, b""
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            return status, head, self._chunks()
        return status, head, self._exactly(int(fields.get(b"content-length", b"0")))

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            body += self._exactly(size)
            self._exactly(2)
        self._until(b"\r\n")
        return body

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            self._more()
        found, _, self._data = self._data.partition(mark)
        return found + mark

    def _exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            self._more()
        found, self._data = self._data[:size], self._data[size:]
        return found

    def _more(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        block = self._connection.recv(262_144)
        if not block:
            raise EOFError
        self._data += block
