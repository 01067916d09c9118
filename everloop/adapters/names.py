"""Names as MLflow takes them."""

from __future__ import annotations

import re

_REFUSED = re.compile(r"[^\w.\- ]|\.\.+", re.ASCII)
_LENGTH = 250


def mlflow_name(text: str) -> str:
    """`text` as the name of a metric or parameter: what MLflow refuses, and slashes that would make paths, are underscores."""
    return _REFUSED.sub("_", text)[:_LENGTH]
