"""What `/metrics` says besides BentoML's own, per model and version.

Counters add up over workers. Label lookups cost a microsecond each, so a version's series are looked up once.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from serving.models import LoadedModel

_BY_VERSION = ["model", "version"]
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 10_000, 100_000)

_REQUESTS = Counter("everloop_requests_total", "Requests for predictions that were answered.", _BY_VERSION)
_ROWS = Counter("everloop_rows_total", "Rows predicted.", _BY_VERSION)
_ERRORS = Counter("everloop_errors_total", "Requests refused or failed, by kind.", [*_BY_VERSION, "kind"])
_LATENCY = Histogram("everloop_predict_seconds", "Time to answer POST /predict.", _BY_VERSION, buckets=_SECONDS)
_SIZE = Histogram("everloop_batch_rows", "Rows of a request.", _BY_VERSION, buckets=_SIZES)
_UNSEEN = Counter("everloop_unseen_categories_total", "Categories that training had not seen.", _BY_VERSION)
_NULLS = Counter("everloop_nulls_total", "Absent feature values.", _BY_VERSION)
_LABELS = Counter("everloop_labels_total", "Labels accepted.", _BY_VERSION)
_LOST = Counter(
    "everloop_capture_lost_total", "Answered predictions, or labels, that could not be kept.", ["model", "kind"]
)
_LAG = Gauge(
    "everloop_capture_lag_seconds",
    "Age of the oldest row that waits for the disk.",
    ["model"],
    multiprocess_mode="livemax",
)
_SWAPS = Counter("everloop_swaps_total", "Versions swapped in, or refused.", ["model", "version", "result"])
_SWAP_SECONDS = Histogram(
    "everloop_swap_seconds", "Time to load, warm and check a version.", _BY_VERSION, buckets=_SECONDS
)
_AGE = Gauge(
    "everloop_model_age_seconds",
    "Time since training; NaN when not served.",
    _BY_VERSION,
    multiprocess_mode="mostrecent",
)


class VersionMetrics:
    """The series of one version."""

    def __init__(self, model: LoadedModel) -> None:
        labels = (model.release.model, model.release.version)
        self._labels = labels
        self._made_at = model.manifest.made_at
        self._requests, self._rows = _REQUESTS.labels(*labels), _ROWS.labels(*labels)
        self._latency, self._size = _LATENCY.labels(*labels), _SIZE.labels(*labels)
        self._unseen, self._nulls = _UNSEEN.labels(*labels), _NULLS.labels(*labels)
        self._age = _AGE.labels(*labels)
        self.labels = _LABELS.labels(*labels)

    def count_answer(self, *, rows: int, seconds: float, nulls: int, unseen: int) -> None:
        """One request was answered."""
        self._requests.inc()
        self._rows.inc(rows)
        self._latency.observe(seconds)
        self._size.observe(rows)
        if nulls:
            self._nulls.inc(nulls)
        if unseen:
            self._unseen.inc(unseen)

    def count_error(self, kind: str) -> None:
        """One request was refused, or failed."""
        _ERRORS.labels(*self._labels, kind).inc()

    def show_age(self) -> None:
        """The version is served now."""
        self._age.set((datetime.now(UTC) - self._made_at).total_seconds())

    def hide_age(self) -> None:
        """The version is served no more."""
        self._age.set(math.nan)


def count_swap(tag: str, result: str) -> None:
    """A version was 'done', served from now on, or 'refused'."""
    _SWAPS.labels(*tag.split(":v"), result).inc()


def observe_preparation(model: LoadedModel, seconds: float) -> None:
    """A version was loaded, warmed and checked."""
    _SWAP_SECONDS.labels(model.release.model, model.release.version).observe(seconds)


def count_lost(model: str, kind: str, items: int) -> None:
    """Predictions or labels could not be kept."""
    _LOST.labels(model, kind).inc(items)


def show_lag(model: str, seconds: float) -> None:
    """How long the oldest row has waited for the disk."""
    _LAG.labels(model).set(seconds)
