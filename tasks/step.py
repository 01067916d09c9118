"""The `@step` decorator: a Prefect task whose result is not cached, for inputs are frames and models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from prefect import task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def step(**options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def step(function: Any = None, **options: Any) -> Any:
    """A task that is called like the function it decorates; `options` are Prefect's, retries for example."""
    return task(function, cache_policy=NO_CACHE, **options)
