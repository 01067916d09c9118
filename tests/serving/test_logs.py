"""Logs: one JSON object a line, whatever was said."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from serving.logs import JsonLines, log_as_json


def said(message: str, *arguments: Any, **more: Any) -> dict[str, Any]:
    """What the line of a record says; it must be one line."""
    record = logging.LogRecord("everloop.serving", logging.WARNING, "app.py", 7, message, arguments, None)
    for name, value in more.items():
        setattr(record, name, value)
    line = JsonLines().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record_is_an_object_with_its_time_level_logger_and_message() -> None:
    """The time has its zone."""
    found = said("swapped to v%s", 7)
    assert datetime.fromisoformat(found.pop("at")).utcoffset() is not None
    assert found == {"level": "warning", "logger": "everloop.serving", "message": "swapped to v7"}


def test_what_the_call_adds_is_in_the_line_if_it_is_ours() -> None:
    """Request id, status, event and version; nothing else slips in."""
    found = said("refused", event="refused request", status=400, request_id="mine", version="7", rows=[1, 2, 3])
    assert {name: found[name] for name in ("event", "status", "request_id", "version")} == {
        "event": "refused request",
        "status": 400,
        "request_id": "mine",
        "version": "7",
    }
    assert "rows" not in found


def test_a_message_of_many_lines_is_one_line() -> None:
    """Nobody can forge a line by what he sends."""
    text = 'refused: "\n{"level": "info"}'
    assert said("%s", text)["message"] == text


def test_a_trace_is_in_the_line_of_its_record() -> None:
    """And not in lines of its own."""
    try:
        raise ValueError("too warm")
    except ValueError:
        found = said("failed", exc_info=sys.exc_info())
    assert found["trace"].startswith("Traceback")
    assert found["trace"].endswith("ValueError: too warm")


def test_what_json_does_not_know_is_its_text() -> None:
    """A log line is never lost because of a value in it."""
    assert said("done", version=ValueError("v7"))["version"] == "v7"


@pytest.fixture
def _loggers_as_before() -> Iterator[None]:
    ours = logging.getLogger("everloop")
    handlers, propagate, level = ours.handlers, ours.propagate, ours.level
    yield
    ours.handlers, ours.propagate = handlers, propagate
    ours.setLevel(level)


@pytest.mark.usefixtures("_loggers_as_before")
def test_all_our_loggers_write_such_lines_to_stderr_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Also when it was asked for twice."""
    log_as_json()
    log_as_json()
    logging.getLogger("everloop.capture").info("kept again", extra={"event": "capture recovered"})
    logging.getLogger("everloop.capture").debug("not this")
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert (json.loads(line)["logger"], json.loads(line)["event"]) == ("everloop.capture", "capture recovered")
    assert shown.out == ""
