"""How much dependence in time costs: the integrated autocorrelation time of a series."""

from __future__ import annotations

import numpy as np

_SHORTEST = 20  # fewer values say nothing about their dependence


def autocorrelation_time(series: np.ndarray) -> float:
    """1 + 2·Σρ_k of `series` (n,) in time order, 1 to n: its mean is worth that of n / τ independent values.

    The larger of two estimates, both of dependence over at most √n values; what changes more slowly is a change of the mean.
    1 for fewer than 20 values, for constants and where a value is not finite.
    """
    n = len(series)
    if n < _SHORTEST or not np.isfinite(series).all() or np.ptp(series) == 0:
        return 1.0
    centred = np.asarray(series, dtype=float) - np.mean(series)
    centred /= np.abs(centred).max()
    return float(np.clip(max(_initial_sequence(centred), _batch_means(centred)), 1, n))


def _initial_sequence(centred: np.ndarray) -> float:
    """Geyer's (1992) initial positive sequence: sums of adjacent pairs of autocorrelations, added while they are positive.

    It stops at the first trough of a cycle, so it misses that the next day is like this one.
    """
    n = len(centred)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    lags = 2 * (int(np.sqrt(n)) // 2 + 1)
    covariances = np.fft.irfft(spectrum * np.conj(spectrum), size)[:lags]
    pairs = (covariances[::2] + covariances[1::2]) / covariances[0]
    ends = np.flatnonzero(pairs <= 0)
    return float(2 * pairs[: ends[0] if len(ends) else None].sum() - 1)


def _batch_means(centred: np.ndarray) -> float:
    """The variance of the means of batches of √n values, over what independent values would give (Flegal & Jones 2010)."""
    length = int(np.sqrt(len(centred)))
    means = centred[: len(centred) // length * length].reshape(-1, length).mean(axis=1)
    return float(length * means.var(ddof=1) / centred.var(ddof=1))
