"""The `@step` decorator: a Prefect task whose result is not cached, for inputs are frames and models."""

from __future__ import annotations

from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

step = partial(task, cache_policy=NO_CACHE)
