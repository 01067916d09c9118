"""HAProxy in front of a service: it keeps the address while one generation of the service follows another."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal

from everloop.adapters.service import end_with_parent
from everloop.domain.errors import StackError
from everloop.domain.spec import ServingSpec

Slot = Literal["blue", "green"]
SLOTS: tuple[Slot, Slot] = ("blue", "green")

_CONFIGURATION = """\
global
    noreuseport
    stats socket {admin} mode 600 level admin
    maxconn 8192
    nbthread 1

defaults
    mode http
    option redispatch
    retries 60
    timeout connect 1s
    timeout client 75s
    timeout http-keep-alive 75s
    timeout http-request {request_ms}ms
    timeout server {server_seconds}s
{errors}

frontend public
    bind 127.0.0.1:{port}
    http-request deny deny_status 413 if {{ req.hdr(content-length) -m int gt {max_body_bytes} }}
    default_backend service

backend service
    server blue 127.0.0.1:1 disabled pool-purge-delay 30s
    server green 127.0.0.1:1 disabled pool-purge-delay 30s
"""


_ERRORS = {
    408: "the request did not arrive in time",
    413: "the body is larger than serving.max_body_bytes allows; split the request",
    502: "the worker ended while it answered; try again",
    503: "the service is starting; try again",
    504: "the answer took too long; send fewer rows",
}


def other(slot: Slot) -> Slot:
    """The place beside `slot`."""
    return SLOTS[slot == "blue"]


def haproxy() -> str | None:
    """The path of HAProxy, None if it is not installed; Debian puts it where only root looks."""
    return shutil.which("haproxy") or next((path for path in ("/usr/sbin/haproxy",) if Path(path).is_file()), None)


class Proxy:
    """A running HAProxy with two places for a service, blue and green."""

    def __init__(self, program: str, port: int, *, folder: Path, serving: ServingSpec) -> None:
        """Start it; nothing answers behind it yet.

        Raises:
            StackError: it does not start; the message quotes its last words.
        """
        self._admin = Path(tempfile.mkdtemp(prefix="everloop-")) / "s"  # a socket's path must be short
        config, log = folder / "haproxy.cfg", folder / "haproxy.log"
        config.write_text(
            _CONFIGURATION.format(
                admin=self._admin,
                port=port,
                request_ms=int(serving.timeout_seconds * 1000),
                server_seconds=int(2 * serving.timeout_seconds) + 10,
                max_body_bytes=serving.max_body_bytes,
                errors=_json_errors(),
            )
        )
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [program, "-db", "-f", str(config)], stdout=output, stderr=output, preexec_fn=end_with_parent
            )
        deadline = time.monotonic() + 10
        while not self._is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
                raise StackError(f"HAProxy does not start on port {port}: {words[0]}")
            time.sleep(0.02)

    def _is_up(self) -> bool:
        """True once it answers: it makes its socket before it takes its port."""
        try:
            return bool(self._ask("show info")) and self.process.poll() is None
        except OSError:
            return False

    def switch(self, to: Slot, port: int) -> None:
        """Afterwards every new request goes to the service on `port`, now in the place `to`; the other place is drained."""
        self._ask(f"set server service/{to} addr 127.0.0.1 port {port}; set server service/{to} state ready")
        self._ask(f"set server service/{other(to)} state drain")

    def in_flight(self, slot: Slot) -> int:
        """Requests that the service in `slot` is answering."""
        for line in self._ask("show stat").splitlines():
            fields = line.split(",")
            if fields[:2] == ["service", slot]:
                return int(fields[4])
        raise StackError(f"HAProxy knows no place {slot}")

    def close(self, slot: Slot) -> None:
        """Afterwards nothing is sent to `slot`, not even by what was on its way."""
        self._ask(f"set server service/{slot} state maint")

    def stop(self) -> None:
        """Afterwards HAProxy does not run."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._admin.parent, ignore_errors=True)

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self._admin))
            connection.sendall(command.encode() + b"\n")
            answer = b""
            while block := connection.recv(65536):
                answer += block
        return answer.decode()


def _json_errors() -> str:
    """HAProxy's own refusals, as JSON like ours."""
    lines = []
    for status, rule in _ERRORS.items():
        body = json.dumps({"error": {"row": None, "field": None, "rule": rule}}, separators=(",", ":"))
        lines.append(f"    http-error status {status} content-type application/json string '{body}'")
    return "\n".join(lines)
