"""FastAPI with the scikit-learn model, pydantic in front and pandas between: `uvicorn …fastapi_sklearn:app`."""

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, Field

from everloop.domain.frames import conform
from tasks.wiring import registry

manifest, pipeline = registry().load(registry().versions("bike-demand")[-1])
app = FastAPI()


class Row(BaseModel):
    """One hour."""

    hr: float = Field(ge=0, le=23)
    weekday: float
    mnth: float = Field(ge=1, le=12)
    season: float = Field(ge=1, le=4)
    yr: float = Field(ge=0, le=50)
    temp: float = Field(ge=0, le=1)
    atemp: float
    hum: float = Field(ge=0, le=1)
    windspeed: float
    holiday: int
    workingday: int
    weathersit: int


class Rows(BaseModel):
    """What a client sends."""

    rows: list[Row]


class Answer(BaseModel):
    """What it gets."""

    predictions: list[float]


@app.post("/predict")
def predict(asked: Rows) -> Answer:
    """One prediction for each row, in order."""
    frame = pd.DataFrame([row.model_dump() for row in asked.rows])
    return Answer(predictions=pipeline.predict(conform(frame, manifest.row_schema)).tolist())
