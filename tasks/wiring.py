"""The one place where settings become the stores that tasks use."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from everloop.adapters.decisions import DecisionStore
from everloop.adapters.registry import Registry
from everloop.settings import settings


@lru_cache(maxsize=1)
def registry() -> Registry:
    """The registry of this process."""
    return Registry(settings().mlflow)


@lru_cache(maxsize=1)
def decisions() -> DecisionStore:
    """The decision store of this process."""
    here = settings()
    here.home.mkdir(parents=True, exist_ok=True)
    return DecisionStore(here.database, lease=timedelta(seconds=here.lease_seconds))
