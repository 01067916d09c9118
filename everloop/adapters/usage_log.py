"""The hourly usage of a model, in one small file: `<folder>/<model>.json`.

Requests, rows and latency are those of the captured predictions; errors are counted by the service as a growing total, whose
growth between two looks is spread over the hours between them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from everloop.adapters.locks import one_at_a_time
from everloop.domain.spec_values import Frozen
from everloop.domain.usage import HourUsage, start_of_hour

log = logging.getLogger("everloop.usage_log")

KEPT = timedelta(days=90)
_ERRORS = "everloop_errors_total"
_HOUR = timedelta(hours=1)


class _Log(Frozen):
    """What the file holds: hours in order, the counter of errors when it was last looked at, and the hour that all are judged before."""

    hours: tuple[HourUsage, ...] = ()
    error_total: int | None = None
    errors_at: datetime | None = None
    judged_until: datetime | None = None


def read_usage(folder: Path, model: str) -> list[HourUsage]:
    """The hours of which something is known, in order (UTC); a damaged file knows nothing, and is told."""
    return list(_read(folder / f"{model}.json").hours)


def judged_until(folder: Path, model: str) -> datetime | None:
    """The hour before which every hour was judged, and what was found told; None if none was."""
    return _read(folder / f"{model}.json").judged_until


def mark_judged(folder: Path, model: str, until: datetime) -> None:
    """Afterwards the hours before that of `until` count as judged."""
    _rewrite(folder / f"{model}.json", lambda log: log.model_copy(update={"judged_until": start_of_hour(until)}))


def record_usage(folder: Path, model: str, rows: pd.DataFrame) -> None:
    """Afterwards the hours of `rows` have the requests, rows and latency that these rows show.

    `rows` are captured predictions with `served_at` (naive UTC), `prediction_id` ("<request id>-<six digits>") and
    `latency_ms`: all that were captured in each of their hours, for they replace what was recorded of it.
    """
    if rows.empty:
        return
    requests = rows["prediction_id"].str.rsplit("-", n=1).str[0]
    by_hour = rows.assign(request=requests).groupby(rows["served_at"].dt.floor("h"))
    latencies = rows.assign(request=requests).drop_duplicates("request").groupby(rows["served_at"].dt.floor("h"))
    found = {
        start_of_hour(hour.to_pydatetime()): {
            "requests": int(part["request"].nunique()),
            "rows": len(part),
            "p95_latency_ms": _known(latencies["latency_ms"].quantile(0.95).get(hour)),
        }
        for hour, part in by_hour
    }

    def change(log: _Log) -> _Log:
        known = {usage.hour: usage for usage in log.hours}
        for hour, numbers in found.items():
            known[hour] = known.get(hour, HourUsage(hour=hour)).model_copy(update=numbers)
        return _with_hours(log, known)

    _rewrite(folder / f"{model}.json", change)


def record_errors(folder: Path, model: str, total: int, at: datetime) -> None:
    """Afterwards the errors counted since the last look stand in the hours since then, each by its share of the time.

    The first look only remembers the total; one that is not later than the last changes nothing. A total below the last
    one is a service that started anew.
    """
    moment = at if at.tzinfo else at.replace(tzinfo=UTC)

    def change(log: _Log) -> _Log:
        if log.errors_at is not None and moment <= log.errors_at:
            return log
        known = {usage.hour: usage for usage in log.hours}
        if log.error_total is not None and log.errors_at is not None:
            new = total - log.error_total if total >= log.error_total else total
            for hour, errors in _spread(new, log.errors_at, moment).items():
                before = known.get(hour, HourUsage(hour=hour))
                known[hour] = before.model_copy(update={"errors": before.errors + errors})
        return _with_hours(log.model_copy(update={"error_total": total, "errors_at": moment}), known)

    _rewrite(folder / f"{model}.json", change)


def error_total(metrics_text: str, model: str) -> int | None:
    """All errors of all versions that a service's `/metrics` counts for `model`; None if it says nothing of the model.

    A counter has no series before its first error: a model with other series has 0.
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples = [
        sample
        for family in text_string_to_metric_families(metrics_text)
        for sample in family.samples
        if sample.name.startswith("everloop_") and sample.labels.get("model") == model
    ]
    return int(sum(sample.value for sample in samples if sample.name == _ERRORS)) if samples else None


def _spread(errors: int, since: datetime, until: datetime) -> dict[datetime, int]:
    """`errors` by hour, in proportion to the time between `since` and `until`; whole numbers with the same sum."""
    result: dict[datetime, int] = {}
    hour, given = start_of_hour(since), 0
    while hour < until:
        due = round(errors * ((min(hour + _HOUR, until) - since) / (until - since)))
        if due > given:
            result[hour] = due - given
        hour, given = hour + _HOUR, due
    return result


def _with_hours(log: _Log, known: dict[datetime, HourUsage]) -> _Log:
    kept = [usage for hour, usage in sorted(known.items()) if hour > max(known) - KEPT]
    return log.model_copy(update={"hours": tuple(kept)})


def _known(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _read(path: Path) -> _Log:
    try:
        return _Log.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Log()
    except ValidationError:
        log.exception("%s is no usage log; usage is recorded anew", path)
        return _Log()


def _rewrite(path: Path, change: Callable[[_Log], _Log]) -> None:
    """Afterwards the file holds what `change` made of it; writers wait for each other, readers see the old or the new."""
    with one_at_a_time(path.parent / f".{path.stem}.lock"):
        before = _read(path)
        after = change(before)
        if after == before:
            return
        draft = path.with_name(f".{path.name}.draft")
        with draft.open("w", encoding="utf-8") as file:
            file.write(after.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
