"""A decision in words: what it means, what happens next, whom it concerns; and numbers as people read them."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from everloop.domain.decision import RetrainingDecision

_CODES = {
    "nothing_found": "no standing signal",
    "degradation": "the loss rose and stays up",
    "slow_decay": "the loss creeps up",
    "not_restored": "a retraining did not restore the loss",
    "not_restored_yet": "a retraining did not restore the loss; waiting for more labelled rows",
    "given_up": "retrainings do not restore the loss",
    "drift": "inputs have drifted",
    "growth": "many new labelled rows",
    "data_quality": "the data is broken",
    "data_quality_warning": "the data looks odd",
    "dependencies": "a dependency is broken",
    "dependencies_warning": "a dependency looks odd",
    "slice_degradation": "a slice got worse",
    "slice_drift": "a slice has drifted",
    "usage": "the usage is irregular",
    "labels_missing": "labels have not arrived",
    "too_few_rows": "too few rows",
    "loss_undefined": "the loss is no number",
    "merged": "windows were put together",
    "blocked": "held back: what comes in is broken",
    "in_flight": "held back: a retraining is not finished",
    "cooldown": "held back: cooldown",
    "budget": "held back: the day's budget is spent",
    "back_off": "held back: a rejected challenger waits for more labelled rows",
    "breaker_open": "held back: too many challengers were rejected",
}


_SUFFIXES = {"_not_persistent": "in too few windows yet", "_ignored": "which the spec ignores"}


SIGNALS = {
    "distribution": "distribution",
    "nulls": "missing values",
    "unseen": "new categories",
    "infinite": "infinite values",
}
_HELD = {"blocked", "in_flight", "cooldown", "budget", "back_off", "breaker_open"}


@dataclass(frozen=True)
class Verdict:
    """The first thing to read: what was decided, what follows, and whom it concerns."""

    action: str
    title: str
    why: str
    next: str
    who: str
    codes: tuple[str, ...]


def reason_in_words(code: str) -> str:
    """A reason code as a person says it."""
    for suffix, words in _SUFFIXES.items():
        if code.endswith(suffix):
            return f"{reason_in_words(code.removesuffix(suffix))}, {words}"
    return _CODES.get(code, code.replace("_", " "))


def verdict_of(decision: RetrainingDecision) -> Verdict:
    """What the decision means for a person."""
    title = {"none": "Nothing to do", "alert": "Look at this", "retrain": "A retraining is on its way"}[decision.action]
    if decision.action == "none" and _HELD & set(decision.reason_codes):
        title = "Nothing to do: a retraining is held back"
    elif decision.is_fired and decision.outcome is not None:
        title = (
            "It was retrained: a new version went live" if decision.released else "It was retrained, the champion stays"
        )
    follows, who = _follow_up(decision)
    why = _why(decision)
    why = why[:1].upper() + why[1:]
    return Verdict(
        decision.action, title, why, follows, who, tuple(dict.fromkeys(map(reason_in_words, decision.reason_codes)))
    )


def _why(decision: RetrainingDecision) -> str:
    """The signal that decided; what is broken comes before it, for nothing else can be believed until it is mended."""
    for what, report in (("data", decision.quality), ("dependencies", decision.dependencies)):
        if decision.action == "alert" and report is not None and report.verdict == "fail":
            errors = [f"{found.column}: {found.message}" for found in report.findings if found.severity == "error"]
            return f"the {what} of this window are broken: {'; '.join(errors) or report.reason}"
    return decision.headline


def _follow_up(decision: RetrainingDecision) -> tuple[str, str]:
    """What happens next, and whom it concerns."""
    codes, model = set(decision.reason_codes), decision.model
    if decision.is_fired:
        ended = f"The retraining has ended: {decision.outcome}."
        runs = "A training run starts by itself; its challenger goes live only if it passes every gate."
        return runs if decision.outcome is None else ended, "nobody: there is nothing to do by hand"
    if decision.action == "none":
        later = "It is scored again when more labels have arrived."
        return later if "labels_missing" in codes else "The next window is judged when it is complete.", "nobody"
    if codes & {"blocked", "data_quality", "dependencies"}:
        return (
            "Nothing is retrained on this window until it is mended; the champion goes on serving.",
            "whoever owns the data",
        )
    if "breaker_open" in codes:
        return (
            f"Look at the rejected challengers, then `everloop resume {model}`; until then nothing is retrained.",
            "its owner",
        )
    if codes & {"usage"} == codes:
        return "Look at what calls the service and how it answers; nothing is retrained.", "whoever runs the service"
    again = f"`prefect deployment run train/{model}` if it should"
    return (
        f"Nothing is retrained by itself because of this: {again}; the champion goes on serving.",
        "the owner of the model",
    )


def interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def share(value: float | None) -> str:
    if value is None:
        return "–"
    if 0 < value < 0.001:
        return "< 0.1%"
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"


def p_value(value: float) -> str:
    return f"{value:.1g}"


def with_code(text: str) -> Markup:
    """`text` as HTML, what stands between backticks as code."""
    marks = (Markup("<code>"), Markup("</code>"))
    parts = [
        Markup.escape(part) if place == 0 else marks[(place - 1) % 2] + part
        for place, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def to_the_minute(text: str) -> str:
    """An ISO time to the minute."""
    return text[:16].replace("T", " ")


def span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def cell(text: str) -> str:
    """`text` inside a Markdown table: it can neither end the cell nor become HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
