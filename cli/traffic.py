"""Traffic for the demo: history replayed in order, as requests to the service; labels follow later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pandas as pd

from everloop.domain.spec import ModelSpec


class Replay:
    """Sends the rows of a history (ordered by event time) and, `delay` later in event time, their labels.

    A request that is not answered with 200 counts as failed and is not sent again.
    """

    def __init__(self, rows: pd.DataFrame, spec: ModelSpec, url: str, *, delay: pd.Timedelta) -> None:
        self._rows, self._spec, self._delay = rows, spec, delay
        self._client = httpx.Client(base_url=url, timeout=30)
        self.sent = self._labelled = self.requests = self.failed = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def now(self) -> pd.Timestamp:
        """The event time of the newest row that was sent."""
        return pd.Timestamp(self._rows[self._spec.time].iloc[max(self.sent - 1, 0)])

    @property
    def is_done(self) -> bool:
        """True when every row was sent."""
        return self.sent == len(self._rows)

    def send(self, rows: int) -> str:
        """Send the next rows in one request, then the labels that are due; the version that answered, '' if none did."""
        batch = self._rows.iloc[self.sent : self.sent + rows]
        names = [name for name in (self._spec.key, self._spec.time, *self._spec.features.names) if name is not None]
        answer = self._post("/predict", {"rows": [_as_json(row) for row in batch[names].to_dict("records")]})
        self.sent += len(batch)
        self._send_labels(self.now - self._delay)
        return str(answer.get("model_version", ""))

    def flush(self) -> None:
        """Send the labels of every row that was sent."""
        self._send_labels(self.now)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _send_labels(self, until: pd.Timestamp) -> None:
        due = self._rows.iloc[self._labelled : self.sent]
        due = due[due[self._spec.time] <= until]
        if due.empty:
            return
        observed = (due[self._spec.time] + self._delay).map(pd.Timestamp.isoformat)
        keys, labels = due[self._spec.key].tolist(), due[self._spec.target].tolist()
        self._post("/labels", {"labels": [_label(*values) for values in zip(keys, labels, observed, strict=True)]})
        self._labelled += len(due)

    def _post(self, path: str, body: dict[str, Sequence[Any]]) -> dict[str, Any]:
        self.requests += 1
        try:
            answer = self._client.post(path, json=body)
        except httpx.TransportError:
            self.failed += 1
            return {}
        self.failed += not answer.is_success
        return answer.json() if answer.is_success else {}


def _label(key: Any, label: Any, observed_at: str) -> dict[str, Any]:
    return {"key": key, "label": label, "observed_at": observed_at}


def _as_json(row: dict[Any, Any]) -> dict[Any, Any]:
    return {name: value.isoformat() if isinstance(value, pd.Timestamp) else value for name, value in row.items()}
