"""What `/metrics` says besides BentoML's own."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

REQUESTS = Counter("everloop_requests_total", "Requests answered, by status.", ["status"])
ROWS = Counter("everloop_rows_total", "Rows predicted, by model version.", ["version"])
LATENCY = Histogram("everloop_predict_seconds", "Time to answer POST /predict, by model version.", ["version"])
SWAPS = Counter("everloop_swaps_total", "Version swaps by result: done, refused, registry unreachable.", ["result"])
CAPTURE_LOST = Counter("everloop_capture_lost_rows_total", "Predictions answered and not captured.")
