"""Claim: one decision, one retraining, whoever dies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import uuid4

from everloop.adapters.decisions import DecisionStore
from everloop.adapters.orchestrator import current_run_id
from everloop.domain.errors import EverloopError
from tasks.wiring import decisions

log = logging.getLogger("everloop.claim")


class Claim:
    """A held decision; without a decision (a run on demand) it holds nothing and says yes to everything."""

    def __init__(self, store: DecisionStore | None, decision: str | None, by: str) -> None:
        self._store, self._decision, self._by = store, decision, by

    def is_held(self) -> bool:
        """True while no other run has taken the decision over."""
        return self._store is None or self._store.renew(str(self._decision), self._by)

    def finish(self, outcome: str, *, trained: bool = False, released: bool = False, rejected: bool = False) -> None:
        """Afterwards the decision is finished with `outcome`, if this run still holds it; see `DecisionStore.finish`."""
        if self._store is not None and not self._store.finish(
            str(self._decision), self._by, outcome, trained=trained, released=released, rejected=rejected
        ):
            log.warning("decision %s was taken over by another run; outcome here: %s", self._decision, outcome)


_current: ContextVar[Claim | None] = ContextVar("claim", default=None)


def still_holds() -> bool:
    """True unless this run acts on a decision that another run has taken over."""
    claim = _current.get()
    return claim is None or claim.is_held()


@contextmanager
def claimed(decision: str | None) -> Iterator[Claim]:
    """While the block runs, this run alone acts on `decision`.

    A refusal (EverloopError) finishes the decision. Anything else that ends the block leaves it to be taken over once
    the lease has ended: the next monitor starts it again.

    Raises:
        DecisionTaken: another run has it.
    """
    if decision is None:
        yield Claim(None, None, "")
        return
    store, by = decisions(), current_run_id(f"process-{uuid4().hex[:8]}")
    store.claim(decision, by)
    claim = Claim(store, decision, by)
    token = _current.set(claim)
    try:
        with store.holding(decision, by):
            yield claim
    except EverloopError as exc:
        claim.finish(f"refused: {exc}")
        raise
    finally:
        _current.reset(token)
