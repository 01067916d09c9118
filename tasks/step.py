"""The `@step` decorator: a Prefect task whose result is not cached, for inputs are frames and models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def step(**options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def step(function: Any = None, **options: Any) -> Any:
    """A task that is called like the function it decorates; `options` are Prefect's, retries for example."""
    return task(function, cache_policy=NO_CACHE, **options)


def in_background(called: Callable[..., R], *arguments: Any) -> PrefectFuture[R]:
    """The future of a step that runs in a thread while the flow goes on; wait for it before the flow ends."""
    future: PrefectFuture[R] = called.submit(*arguments)  # type: ignore[attr-defined]
    return future
