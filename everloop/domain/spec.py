"""The spec of one model: everything a team decides about it, in one frozen value.

`docs/spec.md` is generated from the descriptions below.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag, ValidationError, model_validator

from everloop.domain.errors import SpecError
from everloop.domain.monitor_spec import MonitorSpec, RowWindow, SpanWindow
from everloop.domain.spec_values import Column, Histories, Table, parse_share

Kind = Literal["regression", "binary", "multiclass"]
MetricName = Literal["mae", "rmse", "log_loss", "error_rate", "brier"]
Scalar = bool | int | float | str
PREDICTION = "prediction"  # what a profile calls the model's answers
METRICS_BY_KIND: dict[Kind, tuple[MetricName, ...]] = {
    "regression": ("mae", "rmse"),
    "binary": ("log_loss", "error_rate", "brier"),
    "multiclass": ("log_loss", "error_rate"),
}
ESTIMATORS_BY_KIND: dict[str, tuple[str, ...]] = {
    "regression": (
        "sklearn.ensemble.HistGradientBoostingRegressor",
        "sklearn.ensemble.RandomForestRegressor",
        "sklearn.ensemble.ExtraTreesRegressor",
        "sklearn.linear_model.Ridge",
        "sklearn.linear_model.ElasticNet",
        "sklearn.linear_model.PoissonRegressor",
    ),
    "classification": (
        "sklearn.ensemble.HistGradientBoostingClassifier",
        "sklearn.ensemble.RandomForestClassifier",
        "sklearn.ensemble.ExtraTreesClassifier",
        "sklearn.linear_model.LogisticRegression",
    ),
}


class DataSpec(Table):
    """`[data]`: where labelled rows come from."""

    source: str = Field(
        min_length=1,
        description="A CSV or Parquet file, a folder or a glob of them (relative to EVERLOOP_DATA), or a SQLAlchemy URL.",
    )
    query: str | None = Field(
        None,
        description="SQL. On a database URL it is required and runs there; on files it runs in DuckDB over the table `source`.",
    )
    history: Histories = Field(
        ("all", "20%"),
        description="How far back training looks: 'all', the newest share of the rows such as '20%', or a span such as '180d' "
        "(needs `time`). A list: the search chooses.",
    )
    include_served: bool = Field(
        True, description="Add captured predictions whose labels have arrived to the training data."
    )

    @property
    def histories(self) -> tuple[str, ...]:
        """The candidates for the training history, always as a tuple."""
        return (self.history,) if isinstance(self.history, str) else self.history

    @property
    def is_database(self) -> bool:
        """True if the source is a database URL rather than files."""
        return bool(re.match(r"^[a-z][a-z0-9+]*://", self.source)) and not self.source.startswith("file://")

    @model_validator(mode="after")
    def _query_fits_the_source(self) -> DataSpec:
        if self.is_database and not self.query:
            raise ValueError('a database URL needs a query; add query = "select …" under [data]')
        if not self.histories:
            raise ValueError("history is an empty list; name at least one, for example 'all'")
        return self


class Features(Table):
    """`[features]`: what the model may see."""

    numeric: tuple[Column, ...] = Field((), description="Columns read as numbers (float32); trees may order them.")
    categorical: tuple[Column, ...] = Field(
        (), description="Columns read as categories: text, whole numbers or booleans."
    )
    ranges: dict[str, tuple[float, float]] = Field(
        {}, description="Lowest and highest value allowed for a numeric feature: in training data and in requests."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """All features, numeric ones first."""
        return self.numeric + self.categorical

    @model_validator(mode="after")
    def _is_a_set_of_features(self) -> Features:
        if not self.names:
            raise ValueError("no feature is named; list at least one under numeric or categorical")
        if PREDICTION in self.names:
            raise ValueError(
                f"{PREDICTION!r} is the name of what the model answers; rename the column, in data.query for example"
            )
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is listed more than once; name each feature once")
        for name, (low, high) in self.ranges.items():
            if name not in self.numeric:
                raise ValueError(
                    f"ranges.{name} is not a numeric feature; allowed: {', '.join(self.numeric) or 'none'}"
                )
            if not low < high:
                raise ValueError(f"ranges.{name} is [{low}, {high}]; the first number must be below the second")
        return self


class Range(Table):
    """A range the search draws from: whole numbers if both ends are, otherwise any number between them."""

    low: int | float
    high: int | float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """True if both ends are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low} with log = true; a logarithmic range starts above 0")
        return self


def _form(value: Any) -> str:
    """Which form of a parameter is meant; tags in angle brackets are left out of messages."""
    return "<range>" if isinstance(value, dict | Range) else "<list>" if isinstance(value, list | tuple) else "<value>"


Choice = Annotated[
    Annotated[Range, Tag("<range>")] | Annotated[tuple[Scalar, ...], Tag("<list>")] | Annotated[Scalar, Tag("<value>")],
    Discriminator(_form),
]


def values_of(choice: Range | tuple[Scalar, ...] | Scalar) -> tuple[Scalar, ...]:
    """The values that a choice names: one, all of a list, or both ends of a range."""
    if isinstance(choice, Range):
        return (choice.low, choice.high)
    return choice if isinstance(choice, tuple) else (choice,)


class Candidate(BaseModel):
    """`[[search.candidates]]`: an estimator, and values or ranges of its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
    __pydantic_extra__: dict[str, Choice]

    estimator: str = Field(description="The class, for example sklearn.ensemble.HistGradientBoostingRegressor.")

    @property
    def parameters(self) -> dict[str, Choice]:
        """What the spec says about each parameter: one value, a list to choose from, or a range."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _has_no_empty_list(self) -> Candidate:
        empty = [name for name, choice in self.parameters.items() if choice == ()]
        if empty:
            raise ValueError(f"{empty[0]} is an empty list; name at least one value")
        return self


class Search(Table):
    """`[search]`: architecture and hyperparameters are data."""

    trials: int = Field(
        6,
        ge=1,
        le=1000,
        description="How many configurations are tried; every candidate at least once on every history.",
    )
    validation_share: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="Newest share of the training rows on which configurations are compared; at most gates.holdout_rows.",
    )
    seed: int = Field(0, ge=0, description="Makes a search repeatable.")
    candidates: tuple[Candidate, ...] = Field(min_length=1, description="The estimators to choose among.")


class Gates(Table):
    """`[gates]`: what a challenger must show before it goes live."""

    metric: MetricName = Field(description="The mean loss per row that models are compared on; lower is better.")
    worst_allowed: float = Field(
        gt=0, description="The absolute bar: a challenger whose metric is above it is refused."
    )
    non_inferiority_margin: float = Field(
        0.0, ge=0, description="How much worse than the champion (in units of the loss) still counts as no worse."
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Of the one-sided paired bootstrap interval.")
    holdout_rows: int = Field(
        200,
        ge=20,
        description="The newest labelled rows, kept from training; champion and challenger are judged on them.",
    )
    min_holdout_rows: int = Field(
        100, ge=20, description="Fewer rows that are fresh to the champion too: undetermined, and not promoted."
    )
    slices: tuple[Column, ...] = Field((), description="Columns whose values are judged separately.")
    slice_margin: float = Field(0.1, ge=0, description="Share by which the loss of a slice may exceed the champion's.")
    min_slice_rows: int = Field(30, ge=5, description="Smaller slices are listed but not judged.")
    max_p95_latency_ms: float = Field(50.0, gt=0, description="Bar for single-row requests in the rehearsal.")
    approval: Literal["auto", "manual"] = Field(
        "auto", description="'manual': a version that passed waits as `challenger` until a person releases it."
    )


class ServingSpec(Table):
    """`[serving]`: the prediction service."""

    port: int = Field(3000, ge=1, le=65535, description="Port on 127.0.0.1; EVERLOOP_SERVICE_PORTS overrides it.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes.")
    max_rows: int = Field(1000, ge=1, le=1_000_000, description="Rows a request may hold.")
    max_body_bytes: int = Field(2_000_000, ge=1000, description="Bytes a request body may hold.")
    max_concurrent: int = Field(128, ge=1, description="Requests a worker answers at a time; more get 429.")
    timeout_seconds: float = Field(
        30.0, gt=0, le=600, description="How long sending a body (then 408) and answering it (then 504) may take."
    )
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the API keys, separated by commas; all but health then needs one.",
    )


class ModelSpec(Table):
    """The top of `models/<name>/model.toml`."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Lower-case letters, digits and dashes; the folder's name."
    )
    kind: Kind = Field(description="What is predicted: a number, one of two classes, or one of several.")
    target: Column = Field(description="The label's column.")
    time: Column | None = Field(
        None, description="Event time: orders splits and windows. Without it the source's row order is the time order."
    )
    key: Column | None = Field(None, description="Natural key of a row; labels may be sent with it.")
    data: DataSpec
    features: Features
    search: Search
    gates: Gates
    monitor: MonitorSpec = MonitorSpec()
    serving: ServingSpec = ServingSpec()
    _source: str = PrivateAttr("")

    @property
    def text(self) -> str:
        """The TOML this spec was read from, empty if it was made in code."""
        return self._source

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that training reads, each once: key, time, features, slices, target."""
        wanted = (self.key, self.time, *self.features.names, *self.gates.slices, self.target)
        return tuple(dict.fromkeys(name for name in wanted if name is not None))

    @model_validator(mode="after")
    def _fits_together(self) -> ModelSpec:
        for role, column in (("target", self.target), ("time", self.time), ("key", self.key)):
            if column is not None and column in self.features.names:
                raise ValueError(f"{column!r} is the {role} and a feature; take it out of [features]")
        if self.target in (self.time, self.key):
            role = "time" if self.target == self.time else "key"
            raise ValueError(f"target and {role} are both {self.target!r}; the label must be a column of its own")
        if self.gates.metric not in METRICS_BY_KIND[self.kind]:
            allowed = ", ".join(METRICS_BY_KIND[self.kind])
            raise ValueError(f"gates.metric is {self.gates.metric!r}; for kind {self.kind!r} allowed: {allowed}")
        allowed_estimators = ESTIMATORS_BY_KIND["regression" if self.kind == "regression" else "classification"]
        for position, candidate in enumerate(self.search.candidates):
            if candidate.estimator not in allowed_estimators:
                raise ValueError(
                    f"search.candidates.{position}.estimator is {candidate.estimator!r}; "
                    f"for kind {self.kind!r} allowed: {', '.join(allowed_estimators)}"
                )
        pairs = len(self.search.candidates) * len(self.data.histories)
        if self.search.trials < pairs:
            raise ValueError(
                f"search.trials = {self.search.trials} for {len(self.search.candidates)} candidates on "
                f"{len(self.data.histories)} histories; allow at least {pairs}, one for each pair"
            )
        spans = [history for history in self.data.histories if history != "all" and parse_share(history) is None]
        if self.time is None and spans:
            raise ValueError(
                f"data.history names the span {spans[0]!r} but there is no time column; set time, or use 'all' or a share"
            )
        if self.time is None and self.data.include_served:
            raise ValueError(
                "data.include_served is true but there is no time column to order source and served rows by; "
                "set time, or include_served = false"
            )
        if self.time is None and isinstance(self.monitor.window, SpanWindow):
            raise ValueError("monitor.window is a span but there is no time column; set time, or use { rows = … }")
        if self.time is None and self.monitor.time_parts:
            raise ValueError("monitor.time_parts is set but there is no time column; set time, or leave it out")
        uncategorical = [name for name in self.monitor.slices if name not in self.features.categorical]
        if uncategorical:
            raise ValueError(
                f"monitor.slices names {uncategorical[0]!r}, which is not a categorical feature; "
                f"allowed: {', '.join(self.features.categorical) or 'none'}"
            )
        missing = [name for name in self.gates.slices if name not in self.features.names]
        if missing:
            raise ValueError(
                f"gates.slices names {missing[0]!r}, which is not a feature; allowed: {', '.join(self.features.names)}"
            )
        if self.gates.min_holdout_rows > self.gates.holdout_rows:
            raise ValueError(
                f"gates.min_holdout_rows = {self.gates.min_holdout_rows} is above holdout_rows = {self.gates.holdout_rows}"
            )
        return self


def parse_spec(text: str, *, origin: str) -> ModelSpec:
    """The spec that the TOML `text` declares; `origin` names the file in messages.

    Raises:
        SpecError: the text is no TOML or breaks a rule; the message lists file, key, what was found, what is allowed.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SpecError(f"{origin}: not valid TOML: {exc}; correct the file") from exc
    try:
        spec = ModelSpec.model_validate(values)
    except ValidationError as exc:
        errors = exc.errors()
        paths = [error["loc"] for error in errors]
        deepest = [e for e in errors if not any(p != e["loc"] and p[: len(e["loc"])] == e["loc"] for p in paths)]
        raise SpecError("\n".join(_explain(error, origin) for error in deepest)) from exc
    spec._source = text
    return spec


def _explain(error: Any, origin: str) -> str:
    """One pydantic error as one sentence: file, key, found, allowed."""
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("<")) or "the spec"
    found = error.get("input")
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(_allowed_keys(error["loc"][:-1]))
        return f"{origin}: {key} is not a known key; allowed here: {allowed}"
    if error["type"] == "missing":
        return f"{origin}: {key} is missing; add it (see docs/spec.md)"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(found, dict | list | tuple | ModelSpec) or error["type"] == "value_error":
        return f"{origin}: {key}: {message}"
    return f"{origin}: {key} is {found!r}; {message[0].lower()}{message[1:]}"


def _allowed_keys(path: tuple[Any, ...]) -> list[str]:
    """The keys of the table at `path`."""
    by_tag: dict[Any, Any] = {"<rows>": RowWindow, "<span>": SpanWindow, "<range>": Range, "candidates": Candidate}
    model: Any = ModelSpec
    for part in path:
        if part in by_tag:
            model = by_tag[part]
        elif part in getattr(model, "model_fields", {}):
            model = model.model_fields[part].annotation
    return list(getattr(model, "model_fields", {}))
