"""A lean HTTP client for the benchmarks: one connection, no retries, monotonic times around each request."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status 0 if the connection failed. Times are of `time.monotonic`, in seconds."""

    status: int
    body: bytes
    started: float
    ended: float


class Client:
    """Sends requests to one host, one at a time, on a kept connection or on a new one for each."""

    def __init__(self, port: int, *, keep_alive: bool = True) -> None:
        self._port, self._keep_alive = port, keep_alive
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes, headers: str = "") -> Answer:
        """The answer to one POST; a failed connection is status 0 and is not tried again."""
        kept = "keep-alive" if self._keep_alive else "close"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
            f"Connection: {kept}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        started = time.monotonic()
        try:
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            assert self._reader is not None
            self._writer.write(head.encode() + body)
            status, answer, closes = await _read_answer(self._reader)
        except (OSError, EOFError, ValueError) as exc:  # asyncio's IncompleteReadError is an EOFError
            await self.close()
            return Answer(0, repr(exc).encode(), started, time.monotonic())
        ended = time.monotonic()
        if closes or not self._keep_alive:
            await self.close()
        return Answer(status, answer, started, ended)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        body = await reader.readexactly(int(head[at + 17 : head.index(b"\r\n", at + 2)]))
    elif b"\r\ntransfer-encoding: chunked" in head:
        body = await _read_chunks(reader)
    else:
        body = b""
    return status, body, b"\r\nconnection: close" in head


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that the processes have used."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS
