"""BentoML with the scikit-learn model, as its documentation shows it: `bentoml serve …bentoml_sklearn:BikeDemand`."""

import bentoml
import numpy as np
import pandas as pd

from everloop.domain.frames import conform
from tasks.wiring import registry


@bentoml.service
class BikeDemand:
    """The newest version of bike-demand."""

    def __init__(self) -> None:
        manifest, self.pipeline = registry().load(registry().versions("bike-demand")[-1])
        self.schema = manifest.row_schema

    @bentoml.api
    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """{"rows": [{…}, …]} → […]."""
        return self.pipeline.predict(conform(rows, self.schema))
