"""Train and judge a challenger; one that passes its gates goes on to release."""

from __future__ import annotations

import logging

from prefect import flow

from everloop.adapters.registry import Version
from everloop.domain.errors import DecisionTaken
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from flows.release import release
from tasks.analyze import analyze
from tasks.check import check
from tasks.claim import claimed
from tasks.evaluate import evaluate
from tasks.extract import extract
from tasks.fit import fit
from tasks.prepare import prepare
from tasks.register import register
from tasks.search import search
from tasks.validate import validate
from tasks.wiring import registry

log = logging.getLogger("everloop.train")


@flow(name="train", flow_run_name="{model}: {reason}")
async def train(model: str, reason: str = "on demand", decision: str | None = None, window: str | None = None) -> str:
    """What became of the retraining, in one sentence.

    `decision` is the id of a stored decision: it is claimed, and the run stops at once if another run has it.
    """
    spec = settings().spec(model)
    if window:
        log.info("window: %s", window)
    try:
        with claimed(decision) as claim:
            version = registry().of_decision(model, decision) if decision else None
            version = version or challenge(spec, reason, decision)
            passed = version.tags["verdict"] == "pass"
            outcome = await release(model, version=version.number) if passed else _rejected(version)
            claim.finish(outcome)
    except DecisionTaken as exc:
        outcome = str(exc)
    log.info(outcome)
    return outcome


def challenge(spec: ModelSpec, reason: str, decision: str | None) -> Version:
    """A new registered version with the verdict of its gates."""
    snapshot = extract(spec)
    check(spec, snapshot)
    analyze(spec, snapshot)
    data = prepare(spec, snapshot)
    found = search(spec, data)
    challenger = fit(spec, data, found)
    evaluation = evaluate(spec, data, challenger)
    verdict = validate(spec, evaluation)
    return register(spec, snapshot, data, found, challenger, evaluation, verdict, reason=reason, decision=decision)


def _rejected(version: Version) -> str:
    return f"{version.label} is kept and not released ({version.tags['verdict']}): {version.tags['verdict_reasons']}"
