"""Structured logs: one JSON object a line, with the request id where there is one."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

_OURS = ("event", "status", "request_id", "version")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: at, level, logger, message, what the call added, and a stack trace if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _OURS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_as_json() -> None:
    """Afterwards everloop's loggers write JSON lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    ours = logging.getLogger("everloop")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)
