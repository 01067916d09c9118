"""What the search chooses."""

from __future__ import annotations

from everloop.domain.spec import Scalar
from everloop.domain.spec_values import Frozen


class Configuration(Frozen):
    """One point of the search: an estimator, its parameters, and how far back it is trained."""

    estimator: str
    parameters: dict[str, Scalar] = {}
    history: str = "all"

    @property
    def title(self) -> str:
        """The class name and the parameters, in one line."""
        values = ", ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.parameters.items()
        )
        return f"{self.estimator.rsplit('.', 1)[-1]}({values}) on {self.history}"
