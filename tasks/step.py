"""The `@step` decorator: a Prefect task whose result is not cached, for inputs are frames and models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import opaque

P = ParamSpec("P")
R = TypeVar("R")


class Step(Task[P, R]):
    """A task whose arguments Prefect does not walk through: looking for futures in profiles and models takes a second."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the function returns; an argument that is another step's result still links the two in the UI."""
        quoted: Any = {name: opaque(value) for name, value in named.items()}
        return super().__call__(*map(opaque, arguments), **quoted)


@overload
def step(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def step(**options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def step(function: Any = None, **options: Any) -> Any:
    """A task that is called like the function it decorates; `options` are Prefect's, retries for example."""
    if function is None:
        return lambda decorated: Step(decorated, cache_policy=NO_CACHE, **options)
    return Step(function, cache_policy=NO_CACHE, **options)


def in_background(called: Callable[..., R], *arguments: Any) -> PrefectFuture[R]:
    """The future of a step that runs in a thread while the flow goes on; wait for it before the flow ends."""
    future: PrefectFuture[R] = called.submit(*map(opaque, arguments))  # type: ignore[attr-defined]
    return future
