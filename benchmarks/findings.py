"""Judges what came back for a request: counts it, and keeps an example of whatever is wrong."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.wire import Attempt, Reply

UVICORN = b"Invalid HTTP request received."
HAPROXY = re.compile(rb"<html><body><h1>\d{3} [^<]+</h1>\s*[^<\s][^<]+</body></html>\s*")


def rule_of(body: bytes) -> str:
    """The reason that a refusal names, empty if it names none."""
    try:
        rule = json.loads(body)["error"]["rule"]
    except (ValueError, LookupError, TypeError):
        return ""
    return rule.strip() if isinstance(rule, str) else ""


@dataclass
class Findings:
    """What the answers were, and the first examples of what is wrong with them."""

    leaks_of: re.Pattern[bytes]
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)

    def judge(self, attempt: Attempt, reply: Reply) -> None:
        """Count one answer, and what is wrong with it."""
        seen = str(reply.status) if reply.outcome == "answered" else reply.outcome
        self.counts["requests"] += 1
        self.statuses[seen] += 1
        self.kinds.setdefault(attempt.kind, Counter())[seen] += 1
        for problem in self._problems(attempt, reply):
            self.note(problem, f"{attempt.kind}: {seen}", sent=attempt.wire, got=reply.head + reply.body)

    def note(self, problem: str, group: str, *, sent: bytes, got: bytes) -> None:
        """Count a problem; keep the first example of each of its groups."""
        self.counts[problem] += 1
        found = self.problems.setdefault(problem, {}).setdefault(group, {"count": 0, "sent": "", "got": ""})
        found["count"] += 1
        if not found["sent"] or len(sent) < found["size"]:
            found |= {"size": len(sent), "sent": _shown(sent), "got": _shown(got)}

    def _problems(self, attempt: Attempt, reply: Reply) -> Iterator[str]:
        if reply.outcome == "hang":
            yield "hangs"
        elif reply.outcome == "closed" and not attempt.may_close:
            yield "closed_without_answer"
        elif reply.status >= 500:
            yield "server_errors"
        elif reply.status >= 400 and not attempt.is_head and not self._is_explained(reply):
            yield "unexplained"
        if self.leaks_of.search(reply.head + reply.body):
            yield "leaks"
        if attempt.expects == "refuse" and reply.status == 200:
            yield "wrongly_accepted"
        if attempt.expects == "accept" and not _is_right(reply, attempt.items):
            yield "wrongly_refused"
        self.counts["answered_rows"] += _answered_rows(reply)

    def _is_explained(self, reply: Reply) -> bool:
        if rule_of(reply.body):
            return True
        if reply.body == UVICORN or HAPROXY.fullmatch(reply.body):
            self.counts["explained_by_http_layer"] += 1
            return True
        return False


def _is_right(reply: Reply, items: int) -> bool:
    """True if every row has a finite prediction, or every label was accepted."""
    answer = _answer_of(reply)
    predictions = answer.get("predictions")
    if predictions is None:
        return bool(answer.get("accepted") == items)
    return len(predictions) == len(answer["prediction_ids"]) == items and all(map(math.isfinite, predictions))


def _answered_rows(reply: Reply) -> int:
    return len(_answer_of(reply).get("predictions", ())) if reply.body.startswith(b'{"predictions"') else 0


def _answer_of(reply: Reply) -> dict[str, Any]:
    """The answer of status 200, empty if it is none."""
    try:
        found = json.loads(reply.body) if reply.status == 200 else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _shown(data: bytes, most: int = 600) -> str:
    text = data[:most].decode(errors="backslashreplace")
    return text if len(data) <= most else f"{text} … ({len(data)} bytes)"
