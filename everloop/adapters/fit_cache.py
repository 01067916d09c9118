"""Fits of a replay, kept so that no later replay fits the same rows again.

    <home>/replay/<model>/<digest>/search-<key>.json                      the configuration that a search chose
    <home>/replay/<model>/<digest>/<configuration>/<first>-<last>-<since>-<upto>.npz    losses and answers of one fit

The digest is over the rows, everything of the spec that a fit depends on, the tools that fit, and our own code between. A file is
written beside its place and renamed into it: it is complete or it is not there, whatever is killed when. One that cannot be
read is made again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import version as installed
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
from pydantic import ValidationError
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from everloop.domain import frames, metrics, pipelines, replay_fits, schema
from everloop.domain.configuration import Configuration
from everloop.domain.replay_fits import FitRequest, Fitted, Subject, fit_request
from everloop.domain.spec import ModelSpec

_FIT_WITH = ("scikit-learn", "numpy", "scipy")
_CODE = (schema, frames, pipelines, metrics, replay_fits)
_SMALL = 6000  # a second process takes seconds to start; on fewer rows it is not worth it
_subject: Subject | None = None


def history_folder(home: Path, spec: ModelSpec, rows: pd.DataFrame) -> Path:
    """Where everything that was fitted on `rows` under `spec` is kept."""
    facts = {
        "kind": spec.kind,
        "target": spec.target,
        "features": spec.features.model_dump(mode="json"),
        "metric": spec.gates.metric,
        "seed": spec.search.seed,
        "columns": [[str(name), str(dtype)] for name, dtype in rows.dtypes.items()],
        "tools": {name: installed(name) for name in _FIT_WITH},
        "code": [hashlib.sha256(inspect.getsource(module).encode()).hexdigest() for module in _CODE],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return home / "replay" / spec.name / digest.hexdigest()[:16]


def remembered_configuration(
    folder: Path, spec: ModelSpec, initial: int, search: Callable[[], Configuration]
) -> Configuration:
    """What `search` finds on the first `initial` rows; a search that ended once is not repeated."""
    facts = [
        initial,
        spec.search.model_dump(mode="json"),
        spec.data.histories,
        spec.gates.holdout_rows,
        installed("optuna"),
    ]
    path = folder / f"search-{_key(facts)}.json"
    try:
        return Configuration.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        found = search()
    _write(path, found.model_dump_json().encode())
    return found


class FitCache:
    """Answers fit requests from memory, from disk, or by fitting in at most `processes` processes; a context manager.

    `fitted` counts the fits that were really made.
    """

    def __init__(self, subject: Subject, folder: Path, *, processes: int = 2) -> None:
        self._subject = subject
        self._folder = folder / _key(subject.configuration.model_dump(mode="json", exclude={"history"}))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._processes = processes if len(subject.rows) > _SMALL else 1
        self._known: dict[FitRequest, Fitted] = {}
        self._pool: ProcessPoolExecutor | None = None
        self.fitted = 0

    def __enter__(self) -> FitCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, requests: Sequence[FitRequest]) -> list[Fitted]:
        """One answer a request, in their order."""
        missing = []
        for request in dict.fromkeys(requests):
            if request not in self._known:
                kept = self._read(request)
                if kept is None:
                    missing.append(request)
                else:
                    self._known[request] = kept
        for made in self._fit(missing):
            self._known[made.request] = made
            self.fitted += 1
        return [self._known[request] for request in requests]

    def _fit(self, requests: list[FitRequest]) -> list[Fitted]:
        if self._processes == 1 or not requests:
            return [self._keep(_timed(request, self._subject)) for request in requests]
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=get_context("spawn"), initializer=_receive, initargs=(self._subject,)
            )
        return [self._keep(made) for made in self._pool.map(_fit_here, requests)]

    def _keep(self, made: Fitted) -> Fitted:
        draft = self._folder / f".{os.getpid()}.npz"
        np.savez(
            draft,
            losses=made.losses,
            answers=made.answers,
            seconds=made.seconds,
            failure=made.failure or "",
        )
        draft.replace(self._path(made.request))
        return made

    def _read(self, request: FitRequest) -> Fitted | None:
        try:
            with np.load(self._path(request), allow_pickle=False) as kept:
                failure = str(kept["failure"]) or None
                return Fitted(request, kept["losses"], kept["answers"], float(kept["seconds"]), failure)
        except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return None

    def _path(self, request: FitRequest) -> Path:
        return self._folder / f"{request.first}-{request.last}-{request.since}-{request.upto}.npz"


def _receive(subject: Subject) -> None:
    global _subject
    _subject = subject


def _fit_here(request: FitRequest) -> Fitted:
    assert _subject is not None
    return _timed(request, _subject)


def _timed(request: FitRequest, subject: Subject) -> Fitted:
    """The fit on one thread: several fits share the machine, and the answer does not depend on how many threads there are."""
    with threadpool_limits(1):
        began = time.perf_counter()
        made = fit_request(request, subject)
        return replace(made, seconds=round(time.perf_counter() - began, 4))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    draft.write_bytes(content)
    draft.replace(path)


def _key(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
