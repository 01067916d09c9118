"""Train and judge a challenger; one that passes its gates goes on to release."""

from __future__ import annotations

import logging

from prefect import flow
from prefect.futures import PrefectFuture

from everloop.adapters.registry import Version
from everloop.domain.errors import DecisionTaken
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from flows.release import release_version
from tasks.analyze import analyze
from tasks.check import check
from tasks.claim import claimed
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.extract import extract
from tasks.fit import fit
from tasks.illustrate import illustrate
from tasks.prepare import prepare
from tasks.reference import describe_reference
from tasks.register import register
from tasks.search import search
from tasks.step import in_background
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
            drawing = None
            if version is None:
                version, drawing = challenge(spec, reason, decision)
            passed = version.tags["verdict"] == "pass"
            outcome = release_version(spec, version) if passed else _rejected(version)
            champion = registry().champion(model)
            released = champion is not None and champion.number == version.number
            claim.finish(outcome, trained=True, released=released, rejected=not passed)
            if drawing is not None:
                drawing.result()
    except DecisionTaken as exc:
        outcome = str(exc)
    log.info(outcome)
    return outcome


def challenge(spec: ModelSpec, reason: str, decision: str | None) -> tuple[Version, PrefectFuture[None]]:
    """A new registered version with the verdict of its gates, and its plots, which are being drawn."""
    snapshot = extract(spec)
    check(spec, snapshot)
    analyze(spec, snapshot)
    data = prepare(spec, snapshot)
    found = search(spec, data)
    challenger = fit(spec, data, found)
    evaluation = evaluate(spec, data, challenger)
    verdict = validate(spec, evaluation)
    exported = export(data, challenger, evaluation)
    reference = describe_reference(spec, snapshot, data, challenger, evaluation)
    version = register(
        spec,
        snapshot,
        data,
        found,
        challenger,
        evaluation,
        verdict,
        exported,
        reference,
        reason=reason,
        decision=decision,
    )
    return version, in_background(illustrate, spec, data, challenger, evaluation, version)


def _rejected(version: Version) -> str:
    return f"{version.label} is kept and not released ({version.tags['verdict']}): {version.tags['verdict_reasons']}"
