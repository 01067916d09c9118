"""`[monitor]`: how the live model is watched, and the retraining policy."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from everloop.domain.spec_values import Column, Duration, Persistence, Table, parse_duration

TimePart = Literal["age", "hour", "weekday", "month"]
Reaction = Literal["ignore", "alert", "retrain"]


class RowWindow(Table):
    """A window of a number of captured predictions, in the order they were captured."""

    rows: int = Field(ge=50, le=1_000_000)


class SpanWindow(Table):
    """A window of event time, of whole hours: that is what profiles are kept of."""

    span: Duration

    @model_validator(mode="after")
    def _is_of_whole_hours(self) -> SpanWindow:
        if parse_duration(self.span) % timedelta(hours=1):
            raise ValueError(
                f"span is {self.span!r}; a window is a whole number of hours: write 1h, 6h or 1d for example"
            )
        return self


WindowShape = Annotated[
    Annotated[RowWindow, Tag("<rows>")] | Annotated[SpanWindow, Tag("<span>")],
    Discriminator(
        lambda value: (
            "<span>" if isinstance(value, SpanWindow) or (isinstance(value, dict) and "span" in value) else "<rows>"
        )
    ),
]


class MonitorSpec(Table):
    """`[monitor]`: how the live model is watched and when it is retrained."""

    every: Duration = Field("1h", description="How often the monitor flow runs (checked against prefect.yaml).")
    window: WindowShape = Field(
        RowWindow(rows=1000), description='{ rows = 1000 } or { span = "1d" }: what is profiled and judged at once.'
    )
    min_rows: int = Field(
        200,
        ge=20,
        description="A window with fewer rows of the champion is merged with those before it until there are enough.",
    )
    min_label_coverage: float = Field(
        0.8, gt=0, le=1, description="Share of a window's rows whose labels must have arrived before it is scored."
    )
    max_label_delay: Duration = Field(
        "30d", description="Labels that come later than this after the prediction change no decision any more."
    )
    false_alarms: float = Field(
        0.01,
        gt=0,
        le=0.2,
        description="Share of windows without any change that may alarm. Tests and floors are calibrated to it on the "
        "training data's own consecutive stretches.",
    )
    slices: tuple[Column, ...] = Field((), description="Categorical features whose values are watched separately.")
    time_parts: tuple[TimePart, ...] = Field(
        (),
        description="Parts of the event time that are profiled beside the features; needs `time`. `age`, from the event to the "
        "prediction, is shown and charted; the others are compared with the training data, whose rows have no age.",
    )
    max_age: Duration | None = Field(
        None, description="Age of the newest row of the source, or of the captured rows, above which it is stale."
    )
    on_drift: Reaction = Field("alert", description="What standing drift leads to.")
    on_degradation: Reaction = Field("retrain", description="What a standing rise of the loss leads to.")
    on_growth: float = Field(
        0.5,
        ge=0,
        description="Retrain when the labelled rows since the last training are this share of those that the champion was "
        "fitted on; 0: never.",
    )
    max_loss_increase: float = Field(
        0.05, ge=0, description="Share by which the loss may exceed the champion's validated one before it counts."
    )
    persistence: Persistence = Field(
        "2 of 3", description="In how many of the last windows the same signal must stand."
    )
    cooldown: Duration = Field("6h", description="Event time after a retraining decision in which no other is made.")
    retry_after: Duration | None = Field(
        None, description="The same after a retraining whose challenger did not go live; default: the cooldown."
    )
    budget_per_day: int = Field(4, ge=1, le=1000, description="Retrainings decided within 24 hours of event time.")
    max_rejections: int = Field(
        5,
        ge=1,
        le=100,
        description="After so many challengers in a row that a standing signal asked for and the gates rejected, it retrains no "
        "more until a person says so. Before that, each waits for twice as many new labelled rows as the one before, the "
        "first for twice `min_rows`. As many retrainings that did not restore the loss are told to a person too.",
    )

    @property
    def needed(self) -> int:
        """The n of 'n of m'."""
        return int(self.persistence.split(" of ")[0])

    @property
    def recent(self) -> int:
        """The m of 'n of m'."""
        return int(self.persistence.split(" of ")[1])
