"""Tidy: hourly profiles stay as long as windows may be put together from them again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tasks.tidy import hourly_for
from tests.factories import make_spec


@pytest.mark.parametrize(
    ("window", "days"),
    [({"rows": 500}, 1), ({"span": "1d"}, 1), ({"span": "7d"}, 1), ({"span": "6h"}, 30)],
    ids=["rows", "a day", "a week", "less than a day"],
)
def test_days_are_rolled_up_once_no_window_needs_their_hours(window: dict[str, Any], days: int) -> None:
    spec = make_spec(monitor={"window": window, "max_label_delay": "30d"})
    assert hourly_for(spec) == timedelta(days=days)


def test_a_day_is_kept_by_the_hour_at_least() -> None:
    assert hourly_for(make_spec(monitor={"window": {"span": "1h"}, "max_label_delay": "2h"})) == timedelta(days=1)
