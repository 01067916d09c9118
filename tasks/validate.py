"""Validate: the gates decide."""

from __future__ import annotations

import logging

from everloop.adapters.orchestrator import show_table
from everloop.domain.gates import GateVerdict, judge
from everloop.domain.spec import ModelSpec
from tasks.evaluate import Evaluation
from tasks.step import step

log = logging.getLogger("everloop.validate")


@step
def validate(spec: ModelSpec, evaluation: Evaluation) -> GateVerdict:
    """The verdict over all gates."""
    verdict = judge(evaluation.scores, spec.gates, seed=spec.search.seed)
    rows = [{"gate": result.gate, "verdict": result.verdict, "reason": result.reason} for result in verdict.results]
    show_table(f"gates-{spec.name}", rows, description=f"Gates: {verdict.verdict}")
    log.info("gates: %s: %s", verdict.verdict, "; ".join(verdict.reasons))
    return verdict
