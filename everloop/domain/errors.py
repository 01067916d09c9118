"""Everything Everloop refuses, as one tree.

EverloopError
├── SpecError                 a model.toml that cannot be used
├── DataError                 data that cannot be read as the spec asks
│   ├── SourceNotFound        the file, folder or database is not there
│   ├── SourceEmpty           it is there and holds no rows
│   ├── SchemaMismatch        columns are missing or of another type
│   ├── DuplicateKeys         the natural key does not identify a row
│   └── DataBlocked           the data check failed: retraining on it is refused
├── NotEnoughData             too few rows to train or to judge
├── SearchFailed              no configuration of the search could be fitted
├── ConversionFailed          a fitted pipeline has no ONNX counterpart; it serves natively
├── RegistryError             a version, alias or tag is not what the step needs
├── DecisionTaken             another run holds or has finished this decision
├── RehearsalFailed           the packaged model does not answer as training recorded
├── PromotionRefused          the version may not become champion
├── ServingRefused            the service keeps the version it has
└── StackError                a process of `everloop up` cannot start or does not answer

A message says what was found, what was required and what to do next.
"""


class EverloopError(Exception):
    """The root: the command line catches it and prints its one sentence."""


class SpecError(EverloopError):
    """A model's spec is absent or wrong."""


class DataError(EverloopError):
    """The data cannot be read as the spec asks."""


class SourceNotFound(DataError):
    """The source does not exist or cannot be reached."""


class SourceEmpty(DataError):
    """The source holds no rows."""


class SchemaMismatch(DataError):
    """Columns are missing, or hold another type than the spec declares."""


class DuplicateKeys(DataError):
    """The natural key repeats."""


class DataBlocked(DataError):
    """The data check failed, so nothing is trained on this data."""


class NotEnoughData(EverloopError):
    """There are too few rows for the step."""


class SearchFailed(EverloopError):
    """No configuration of the search could be fitted."""


class ConversionFailed(EverloopError):
    """A fitted pipeline cannot be exported."""


class RegistryError(EverloopError):
    """The registry does not hold what the step needs."""


class DecisionTaken(EverloopError):
    """The retraining decision is held or finished by another run."""


class RehearsalFailed(EverloopError):
    """The packaged model answered other than training recorded, or too slowly."""


class PromotionRefused(EverloopError):
    """The version may not become champion."""


class ServingRefused(EverloopError):
    """A service cannot start, or keeps the version it has."""


class StackError(EverloopError):
    """A server of the stack cannot start or does not answer."""
