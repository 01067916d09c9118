"""Capture: every answered prediction and every label is appended to a file before the answer goes out.

One `write` to a file opened for appending: what was written survives a killed process. See everloop/adapters/inference_log.py
for how it is read.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson


class Capture:
    """Appends JSON lines to `<folder>/date=<today>/<writer>.jsonl`; one instance a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._day = ""
        self._file = -1
        self._torn = False

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Afterwards `lines` are in the file, all in one write.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        data = b"".join(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n" for line in lines)
        descriptor = self._open()
        if self._torn:
            data = b"\n" + data
        self._torn = True
        while data:
            data = data[os.write(descriptor, data) :]
        self._torn = False

    def _open(self) -> int:
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        if today != self._day:
            path = self._folder / f"date={today}" / f"{self._writer}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            if self._file >= 0:
                os.close(self._file)
            self._file, self._day = descriptor, today
        return self._file
