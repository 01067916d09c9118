"""Training in a replay: what flows/train.py does, on the rows whose labels are known in simulated time.

The newest labelled rows judge; the histories of the spec are compared on the rows before them, as the search does; the
challenger is fitted on everything before the holdout and released only if its gates pass. What is judged is what is served.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from everloop.domain.errors import NotEnoughData
from everloop.domain.gates import HoldoutScores, Verdict, judge
from everloop.domain.metrics import LossSummary, row_losses, score, summarize, trivial_predictions
from everloop.domain.replay_fits import FitRequest, Fits, Fitted, Subject
from everloop.domain.schema import canonical_category
from everloop.domain.splits import Split, split_by_time, within_history


@dataclass(frozen=True)
class Trained:
    """A model of a replay: its fit, the history it was given, and its losses on the holdout in brief."""

    fitted: Fitted
    history: str
    baseline: LossSummary


@dataclass(frozen=True)
class Challenge:
    """One training and what its gates said; `model` is None if it could not be fitted.

    `rows_trained` and `seconds_trained` count every fit, also those that only chose the history.
    """

    model: Trained | None
    verdict: Verdict
    reason: str
    rows_trained: int
    seconds_trained: float


class Trainer:
    """Trains and judges; the same question is answered once, whoever asks."""

    def __init__(self, subject: Subject, fits: Fits) -> None:
        self._subject, self._fits, self._rows = subject, fits, len(subject.rows)
        self._challenges: dict[tuple[int, FitRequest, str], Challenge] = {}

    @property
    def subject(self) -> Subject:
        """What is replayed."""
        return self._subject

    def first(self, known: int) -> Trained:
        """The model that a replay starts with, on the configuration's own history; its gates are not asked.

        Raises:
            NotEnoughData: the `known` rows are too few for a holdout, or nothing can be learnt from them.
        """
        before = known - len(self._split(known).holdout)
        fitted = self._final(self._subject.configuration.history, before)
        if fitted.failure is not None:
            raise NotEnoughData(
                f"nothing can be learnt from the first {before:,} rows: {fitted.failure}; begin with a larger initial share"
            )
        losses = fitted.losses_of(before, known)
        return Trained(fitted, self._subject.configuration.history, summarize(losses))

    def challenge(self, known: int, champion: Trained, version: str = "1") -> Challenge:
        """The challenger trained on the first `known` rows, judged against `champion`, which is `version`, on the newest of them."""
        question = (known, champion.fitted.request, version)
        if question not in self._challenges:
            self._challenges[question] = self._challenge(known, champion, version)
        return self._challenges[question]

    def _challenge(self, known: int, champion: Trained, version: str) -> Challenge:
        split = self._split(known)
        before = known - len(split.holdout)
        history, compared = self._choose_history(split)
        fitted = self._final(history, before)
        fits = [*compared, fitted]
        cost = sum(fit.rows for fit in fits), sum(fit.seconds for fit in fits)
        if fitted.failure is not None:
            return Challenge(None, "fail", f"it could not be fitted: {fitted.failure}", *cost)
        model = Trained(fitted, history, summarize(fitted.losses_of(before, known)))
        verdict = judge(self._scores(model, champion, before, known, version), self._subject.spec.gates)
        return Challenge(model, verdict.verdict, "; ".join(verdict.reasons), *cost)

    def _split(self, known: int) -> Split:
        return split_by_time(self._subject.rows.iloc[:known], self._subject.spec)

    def _choose_history(self, split: Split) -> tuple[str, list[Fitted]]:
        """The history that does best on the validation rows of `split`, and the fits that were compared."""
        spec = self._subject.spec
        if len(spec.data.histories) == 1:
            return spec.data.histories[0], []
        cut, before = len(split.train), len(split.train) + len(split.validation)
        requests = [
            FitRequest(first=self._begin(history, cut), last=cut, upto=before, since=cut)
            for history in spec.data.histories
        ]
        fits = self._fits(requests)
        found = [np.inf if fit.failure else score(spec.gates.metric, fit.losses_of(cut, before)) for fit in fits]
        return spec.data.histories[int(np.argmin(found))], fits

    def _final(self, history: str, before: int) -> Fitted:
        first = self._begin(history, before)
        return self._fits([FitRequest(first=first, last=before, upto=self._rows, since=first)])[0]

    def _begin(self, history: str, last: int) -> int:
        """Where `history` begins if it ends before row `last`."""
        rows = self._subject.rows.iloc[:last]
        return last - len(within_history(rows, history, self._subject.spec.time))

    def _scores(self, model: Trained, champion: Trained, before: int, known: int, version: str) -> HoldoutScores:
        """The losses of both and of a trivial model on the holdout; rows that the champion learnt from are not fresh."""
        subject, learnt = self._subject, model.fitted.request
        gates, target = subject.spec.gates, subject.rows[subject.spec.target]
        metric, holdout = gates.metric, subject.rows.iloc[before:known]
        known_targets = target.iloc[learnt.first : learnt.last].to_numpy()
        trivial = trivial_predictions(metric, known_targets, known - before, subject.schema.classes)
        fresh = np.arange(before, known) >= champion.fitted.request.last
        of_champion = np.full(known - before, np.nan)
        of_champion[fresh] = champion.fitted.losses_of(max(before, champion.fitted.request.last), known)
        return HoldoutScores(
            challenger=model.fitted.losses_of(before, known),
            baseline=row_losses(metric, target.iloc[before:known].to_numpy(), trivial),
            champion=of_champion,
            fresh=fresh,
            champion_version=version,
            slices={name: np.array([canonical_category(v) for v in holdout[name]]) for name in gates.slices},
        )
