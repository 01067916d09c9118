"""Run a flow in this process and die by SIGKILL before or after a named step: `killed.py <step> <flow> key=value …`.

<step> is before:module:function or after:module:function, or 'never'. `module` is where the flow looks the function up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def die_at(step: str) -> None:
    """Afterwards the named function ends this process when it is called, or when it has returned."""
    moment, module_name, path = step.split(":")
    owner: Any = import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original: Callable[..., Any] = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs) if moment == "after" else None
        if name != "store" or args[-1].action == "retrain":
            os.kill(os.getpid(), signal.SIGKILL)
        return result if moment == "after" else original(*args, **kwargs)

    setattr(owner, name, deadly)


def main() -> None:
    """Run the flow and print what it returned."""
    step, flow_name, *pairs = sys.argv[1:]
    flow = getattr(import_module(f"flows.{flow_name}"), flow_name)
    if step != "never":
        die_at(step)
    print(asyncio.run(flow(**dict(pair.split("=", 1) for pair in pairs))))


if __name__ == "__main__":
    main()
