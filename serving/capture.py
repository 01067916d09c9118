"""Capture: every answered prediction and every label is appended to a segment before the answer goes out.

One `write` to a file opened for appending: what was written survives a killed process. A segment is closed when it is
large or old; while a writer has it open it is locked, so that compaction leaves it alone (everloop/adapters/inference_log.py).
A disk that is slow gets a thread of its own, so that answers do not wait for it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

log = logging.getLogger("everloop.capture")

SLOW_SECONDS = 0.1
"""An append that takes longer moves the next ones to the thread."""
RETRY_SECONDS = 10.0
PENDING_BYTES = 64_000_000
"""What may wait for a slow disk; more is lost, and counted."""


class Segments:
    """Appends lines to `<folder>/date=<today>/<writer>-<number>.jsonl`.

    A line is in the file whole or not at all: a part that a full disk has taken is cut off again.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_seconds: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._writer = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._number = 0
        self._file = -1
        self._size = 0
        self._ends = 0.0

    def append(self, line: bytes) -> None:
        """Afterwards `line`, which ends with a newline, is in a segment.

        Raises:
            OSError: the disk is full, or the folder cannot be written; nothing of the line is kept.
        """
        if self._file < 0 or self._size >= self._max_bytes or time.time() >= self._ends:
            self._rotate()
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:] if written else line)
        except OSError:
            if written:
                self._cut_off()
            raise
        self._size += written

    def close(self) -> None:
        """Afterwards no segment is open."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _cut_off(self) -> None:
        """Afterwards the part of a line is gone; if the disk does not even allow that, the next line gets a new segment."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self.close()

    def _rotate(self) -> None:
        """Afterwards a new segment is open; if none can be made, the old one goes on for a while."""
        now = datetime.now(UTC)
        path = self._folder / f"date={now:%Y-%m-%d}" / f"{self._writer}-{self._number:05d}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _open_locked(path)
        except OSError:
            if self._file < 0:
                raise
            self._size, self._ends = os.fstat(self._file).st_size, time.time() + RETRY_SECONDS
            return
        self.close()
        self._file, self._size, self._number = file, 0, self._number + 1
        midnight = (now.timestamp() // 86_400 + 1) * 86_400
        self._ends = min(time.time() + self._max_seconds, midnight)


def _open_locked(path: Path) -> int:
    """A descriptor of the file at `path`, locked; made again if compaction has taken it away before it was locked."""
    while True:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            is_there = os.fstat(file).st_nlink > 0
        except OSError:
            os.close(file)
            raise
        if is_there:
            return file
        os.close(file)


class Capture:
    """Keeps lines in segments, and counts what it could not keep.

    `keep` is called from one thread, the event loop's. As long as the disk is quick it writes at once. After a slow write
    lines go to a thread in order, `PENDING_BYTES` of them at most, until the disk is quick again.
    """

    def __init__(self, segments: Segments, *, on_lost: Callable[[int], None] = lambda _: None) -> None:
        self._segments = segments
        self._on_lost = on_lost
        self._pending: deque[tuple[float, bytes, int]] = deque()
        self._pending_bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.lost = 0
        self.problem: str | None = None

    def keep(self, line: bytes, items: int) -> bool:
        """True if `line`, which holds `items` rows or labels, is kept, or waits for a slow disk."""
        with self._changed:
            if self._thread is not None:
                return self._queue(line, items)
        started = time.perf_counter()
        kept = self._append(line, items)
        if time.perf_counter() - started > SLOW_SECONDS:
            log.warning("the disk is slow: captured rows now wait in memory", extra={"event": "capture slow"})
            self._thread = threading.Thread(target=self._drain, name="capture", daemon=True)
            self._thread.start()
        return kept

    @property
    def is_degraded(self) -> bool:
        """True while rows are being lost, or wait for a slow disk."""
        return self.problem is not None or bool(self._pending)

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest line that waits, 0 if none does."""
        oldest = next(iter(tuple(self._pending)), None)
        return time.monotonic() - oldest[0] if oldest else 0.0

    def close(self, seconds: float) -> None:
        """Afterwards what waited for the disk is written, or after `seconds` counted as lost."""
        self.wait(seconds)
        with self._changed:
            if left := sum(items for _, _, items in self._pending):
                self._lose(left, "the service stopped before the disk was quick again")

    def wait(self, seconds: float) -> None:
        """Return when nothing waits for the disk, at the latest after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)

    def _append(self, line: bytes, items: int) -> bool:
        try:
            self._segments.append(line)
        except OSError as exc:
            self._lose(items, exc.strerror or type(exc).__name__)
            return False
        if self.problem is not None and len(self._pending) <= 1:
            log.warning("captured rows are kept again", extra={"event": "capture recovered"})
            self.problem = None
        return True

    def _lose(self, items: int, problem: str) -> None:
        with self._changed:
            self.lost += items
            is_new, self.problem = self.problem != problem, problem
        self._on_lost(items)
        if is_new:
            log.error("captured rows are lost: %s", problem, extra={"event": "capture lost"})

    def _queue(self, line: bytes, items: int) -> bool:
        if self._pending_bytes + len(line) > PENDING_BYTES:
            self._lose(items, "the disk is too slow")
            return False
        self._pending.append((time.monotonic(), line, items))
        self._pending_bytes += len(line)
        self._changed.notify_all()
        return True

    def _drain(self) -> None:
        """Write what waits; end once nothing waits and the last write was quick."""
        quick = False
        while True:
            with self._changed:
                if not self._pending:
                    if quick:
                        self._thread = None
                        self._changed.notify_all()
                        return
                    self._changed.wait(1)
                if not self._pending:
                    quick = True  # nobody asked for a second: try the next line at once
                    continue
                _, line, items = self._pending[0]
            started = time.perf_counter()
            self._append(line, items)
            quick = time.perf_counter() - started <= SLOW_SECONDS
            with self._changed:
                self._pending.popleft()
                self._pending_bytes -= len(line)
                self._changed.notify_all()
