"""What the reference's own consecutive blocks say about windows without change: design effects, floors, persistence.

Rows of real windows depend on each other and on the season, so a test that takes them as independent cries wolf. Each
block is compared with the rest of the reference: how far blocks scatter gives the design effect, how far they go gives the
floor, and in which order they would have alarmed gives the persistence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from everloop.domain.spec_values import Frozen
from everloop.domain.summaries import ColumnSummary, ProfileSummary
from everloop.domain.two_sample import Comparison, Signal, compare_columns, mean_square

FLOORS: dict[Signal, float] = {"distribution": 0.05, "nulls": 0.01, "unseen": 0.002, "infinite": 0.001}
DRIFT_SHARE = 0.6  # of the false alarms that the spec allows; losses and their decay have the rest
MIN_BLOCKS, ENOUGH_BLOCKS, MOST_BLOCKS = 4, 20, 60
_CONFIDENCE = 0.99  # of the bound of a design effect
_USUAL = 0.05  # of the blocks have an effect at least as large as the usual one
_COMPATIBLE = 0.95  # up to this point of its law a dispersion passes as that of independent rows
_TINY = 1e-300
_DEPENDENT_SHARE = 0.2  # of the columns, above it the rows are taken as dependent in all of them

Key = tuple[str, Signal]


class SignalCalibration(Frozen):
    """One signal of one column: n rows are worth n / design_effect, and an effect up to the floor is no news.

    `usual` is the effect that one block in twenty reaches, two at least, as shifts, nights and weekends do and a single outage
    does not; None if an earlier Everloop calibrated.
    """

    column: str
    signal: Signal
    design_effect: float
    floor: float
    usual: float | None = None


class Calibration(Frozen):
    """What the blocks of a reference taught; stored with the version.

    `alarmed_share` of the blocks would have alarmed against the rest of the reference; `persistence_needed` of `recent`
    windows would never have stood on it. `standing` are columns that held one value in at least one block.
    """

    blocks: int
    block_rows: int
    false_alarms: float
    recent: int
    persistence_needed: int
    alarmed_share: float
    reason: str
    signals: tuple[SignalCalibration, ...] = ()
    standing: tuple[str, ...] = ()

    @property
    def is_calibrated(self) -> bool:
        """False if the reference had too few blocks: default floors, rows taken as independent."""
        return self.blocks >= MIN_BLOCKS

    def by_signal(self) -> dict[Key, SignalCalibration]:
        """The calibrations by column and signal."""
        return {(entry.column, entry.signal): entry for entry in self.signals}


def block_bounds(rows: int, *, window_rows: int) -> list[tuple[int, int]]:
    """Where the blocks of a reference of `rows` rows start and stop: as long as a window, evenly spread, at most 60.

    If that makes fewer than 20 they are shorter, down to a quarter of a window: a block shorter than a window makes floors
    too high and misses slow dependence, few blocks make design effects uncertain.
    """
    length = max(min(window_rows, rows // ENOUGH_BLOCKS), window_rows // 4, 1)
    count = min(rows // length, MOST_BLOCKS)
    starts = np.linspace(0, rows - length, count).astype(int) if count else np.empty(0, dtype=int)
    return [(int(start), int(start) + length) for start in starts]


def calibrate(
    blocks: Sequence[ProfileSummary], whole: ProfileSummary, *, false_alarms: float, recent: int = 3
) -> Calibration:
    """The calibration of `whole` by its consecutive `blocks`, each about as long as a window, in time order.

    Floors are the (1 - false_alarms) quantile of the blocks' own effects, at least FLOORS. Fewer than 4 blocks calibrate
    nothing, and the result says so.
    """
    rows = int(np.median([block.rows for block in blocks])) if blocks else 0
    if len(blocks) < MIN_BLOCKS:
        return Calibration(
            blocks=len(blocks),
            block_rows=rows,
            false_alarms=false_alarms,
            recent=recent,
            persistence_needed=1,
            alarmed_share=0.0,
            reason=f"{len(blocks)} blocks of the reference, {MIN_BLOCKS} are required to calibrate: default floors, "
            "rows taken as independent",
        )
    compared = _compare_with_rest(blocks, whole)
    design_effects = _design_effects(compared)
    alarms = np.array([_would_alarm(compared, position, false_alarms) for position in range(len(blocks))])
    return Calibration(
        blocks=len(blocks),
        block_rows=rows,
        false_alarms=false_alarms,
        recent=recent,
        persistence_needed=_persistence(alarms, recent),
        alarmed_share=float(np.mean(alarms)),
        reason=f"calibrated on {len(blocks)} blocks of {rows:,} rows: {int(alarms.sum())} of them would have alarmed, "
        f"median design effect {np.median(design_effects):.2g}",
        signals=tuple(
            SignalCalibration(
                column=column,
                signal=signal,
                design_effect=float(design_effect),
                floor=_floor(signal, np.array([one.effect for one in by_block.values()]), false_alarms),
                usual=_usual([one.effect for one in by_block.values()]),
            )
            for ((column, signal), by_block), design_effect in zip(compared.items(), design_effects, strict=True)
        ),
        standing=tuple(
            name
            for name in whole.columns
            if any(name in block.columns and block.columns[name].only_value is not None for block in blocks)
        ),
    )


def _compare_with_rest(blocks: Sequence[ProfileSummary], whole: ProfileSummary) -> dict[Key, dict[int, Comparison]]:
    """By column and signal: the comparison of each block (by its position) with the rest of the reference."""
    compared: dict[Key, dict[int, Comparison]] = {}
    for name, column in whole.columns.items():
        null_mean = mean_square(column)
        for position, block in enumerate(blocks):
            if name in block.columns:
                rest = _without(column, block.columns[name])
                for found in compare_columns(rest, block.columns[name], null_mean=null_mean):
                    compared.setdefault((name, found.signal), {})[position] = found
    return compared


def _without(whole: ColumnSummary, block: ColumnSummary) -> ColumnSummary:
    """The summary of the rows of `whole` that are not in `block`."""
    categories = cdf = None
    if whole.categories is not None and block.categories is not None:
        left = {name: count - block.categories.get(name, 0) for name, count in whole.categories.items()}
        categories = {name: count for name, count in left.items() if count > 0}
    finite, of_block = whole.present - whole.infinite, block.present - block.infinite
    whole_cdf, block_cdf = whole.cdf, block.cdf
    if whole_cdf is not None and block_cdf is not None and finite > of_block:

        def cdf(points: np.ndarray) -> np.ndarray:
            return np.clip((finite * whole_cdf(points) - of_block * block_cdf(points)) / (finite - of_block), 0, 1)

    return ColumnSummary(
        n=whole.n - block.n,
        nulls=whole.nulls - block.nulls,
        infinite=whole.infinite - block.infinite,
        cdf=cdf if block_cdf is not None else whole_cdf,
        support=whole.support,
        categories=categories,
    )


def _design_effects(compared: Mapping[Key, Mapping[int, Comparison]], *, without: int | None = None) -> np.ndarray:
    """The upper 99 % bound of each signal's design effect, in their order; 1 where rows pass as independent.

    The mean dispersion of the blocks (but the one at `without`) is about φ·χ²_ν / ν (Rao & Scott 1981), with ν from how the
    blocks scatter (Satterthwaite 1946) where that is less than independent rows would have. Where the rows of more than a
    fifth of the columns are dependent, no column gets the benefit of the doubt.
    """
    ratios, freedoms, scatters = np.zeros((3, len(compared)))
    for at, by_block in enumerate(compared.values()):
        squares = np.array([one.dispersion() for position, one in by_block.items() if position != without])
        if len(squares) > 1 and squares[:, 0].sum() > 0:
            freedoms[at] = squares[:, 1].sum()
            ratios[at] = squares[:, 0].sum() / freedoms[at]
            seen = 2 * len(squares) * squares[:, 0].mean() ** 2 / max(squares[:, 0].var(ddof=1), _TINY)
            scatters[at] = min(freedoms[at], seen)
    informed = scatters > 0
    dependent = informed & (ratios > stats.chi2.ppf(_COMPATIBLE, np.maximum(freedoms, 1)) / np.maximum(freedoms, 1))
    mixes = np.array([signal == "distribution" for _, signal in compared])
    everywhere = mixes.any() and dependent[mixes].mean() > _DEPENDENT_SHARE
    scatters = np.where(informed, scatters, 1.0)
    bounds = np.maximum(ratios * scatters / stats.chi2.ppf(1 - _CONFIDENCE, scatters), 1.0)
    found = np.where(dependent | (informed & everywhere), bounds, 1.0)
    places = {key: place for place, key in enumerate(compared)}
    for (column, signal), place in places.items():
        if (
            signal == "unseen" and (column, "distribution") in places
        ):  # what was never seen comes in runs as the rest does
            found[place] = max(found[place], found[places[column, "distribution"]])
    return found


def _floor(signal: Signal, effects: np.ndarray, false_alarms: float) -> float:
    beyond = float(np.quantile(effects, 1 - false_alarms, method="higher")) if len(effects) else 0.0
    return max(FLOORS[signal], beyond)


def _usual(effects: Sequence[float]) -> float:
    return sorted(effects)[-max(2, int(_USUAL * len(effects)) + 1)] if len(effects) > 1 else 0.0


def _would_alarm(compared: Mapping[Key, Mapping[int, Comparison]], position: int, false_alarms: float) -> bool:
    """Whether the block at `position` would have alarmed if only the other blocks had been there to calibrate on."""
    design_effects = _design_effects(compared, without=position)
    alpha = DRIFT_SHARE * false_alarms / len(compared)
    for (_, signal), by_block, design_effect in zip(compared, compared.values(), design_effects, strict=True):
        if position in by_block:
            others = np.array([one.effect for other, one in by_block.items() if other != position])
            found = by_block[position]
            if found.effect > _floor(signal, others, false_alarms) and found.p_value(design_effect) < alpha:
                return True
    return False


def _persistence(alarms: np.ndarray, recent: int) -> int:
    """The smallest n such that no `recent` consecutive blocks had n alarms; `recent` if none is small enough."""
    most = max(int(alarms[max(0, end - recent) : end].sum()) for end in range(1, len(alarms) + 1))
    return min(most + 1, recent)
