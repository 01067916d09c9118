"""The registry: MLflow is the single source of truth about versions.

Aliases: `champion` is live, `challenger` passed its gates and waits, `previous` is the way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from everloop.adapters.model_files import MODEL_FILE, load_pipeline, read_manifest
from everloop.domain.errors import RegistryError
from everloop.domain.manifest import Manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
MONITORING = "{model}.monitoring"
TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens its page for GenAI
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class Version:
    """One registered version: its model, its number, the run that made it, its tags."""

    model: str
    number: str
    run_id: str
    source: str
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How people call it: 'bike-demand v7'."""
        return f"{self.model} v{self.number}"

    @property
    def bento(self) -> str:
        """The tag of the version's bento and of its model in the bento store."""
        return f"{self.model}:v{self.number}"


class Registry:
    """Versions, aliases and tags in MLflow."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """The MLflow client, made on first use because the import takes seconds."""
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self._uri, self._uri)
        return self._client

    def at_alias(self, model: str, alias: str) -> Version | None:
        """The version of `model` under `alias`, None if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return _version(self.client.get_model_version_by_alias(model, alias))
        except MlflowException as exc:
            if exc.error_code in ABSENT:
                return None
            raise

    def champion(self, model: str) -> Version | None:
        """The live version of `model`, None before the first promotion."""
        return self.at_alias(model, CHAMPION)

    def version(self, model: str, number: str) -> Version:
        """The version of `model` with this number.

        Raises:
            RegistryError: it does not exist.
        """
        from mlflow.exceptions import MlflowException

        try:
            return _version(self.client.get_model_version(model, number))
        except MlflowException as exc:
            if exc.error_code not in ABSENT:
                raise
            raise RegistryError(f"{model} has no version {number}; `everloop status` lists what is registered") from exc

    def versions(self, model: str) -> list[Version]:
        """Every version of `model`, oldest first."""
        found = [_version(item) for item in self.client.search_model_versions(f"name='{model}'")]
        return sorted(found, key=lambda version: int(version.number))

    def of_decision(self, model: str, decision: str) -> Version | None:
        """The version that a retraining for `decision` registered, None if none did."""
        return next(
            (version for version in reversed(self.versions(model)) if version.tags.get("decision") == decision), None
        )

    def set_alias(self, version: Version, alias: str) -> None:
        """Afterwards `alias` points to `version`."""
        self.client.set_registered_model_alias(version.model, alias, version.number)

    def remove_alias(self, model: str, alias: str) -> None:
        """Afterwards `alias` points to nothing."""
        self.client.delete_registered_model_alias(model, alias)

    def tag(self, version: Version, **tags: str) -> None:
        """Afterwards the version carries `tags`."""
        for key, value in tags.items():
            self.client.set_model_version_tag(version.model, version.number, key, value)

    def promote(self, version: Version) -> Version | None:
        """Afterwards `version` is champion and the champion before it is `previous`, which is returned."""
        before = self.champion(version.model)
        if before is not None and before.number != version.number:
            self.set_alias(before, PREVIOUS)
        self.set_alias(version, CHAMPION)
        waiting = self.at_alias(version.model, CHALLENGER)
        if waiting is not None and waiting.number == version.number:
            self.remove_alias(version.model, CHALLENGER)
        return before

    def restore(self, version: Version) -> None:
        """Afterwards `version` is champion again, and the one that was live before it, if any, is the way back."""
        self.set_alias(version, CHAMPION)
        earlier = version.tags.get("previous", "none")
        if earlier == "none":
            self.remove_alias(version.model, PREVIOUS)
        else:
            self.set_alias(self.version(version.model, earlier), PREVIOUS)

    def artifact(self, version: Version, path: str, folder: Path) -> Path:
        """Where the artifact `path` of the version's run now lies, under `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        return Path(self.client.download_artifacts(version.run_id, path, str(folder)))

    @contextmanager
    def model_folder(self, version: Version) -> Iterator[Path]:
        """The folder of the version's MLflow model, there until the block ends."""
        import mlflow

        mlflow.set_tracking_uri(self._uri)
        with TemporaryDirectory(prefix="everloop-model-") as scratch:
            source = f"models:/{version.model}/{version.number}"
            yield Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=scratch))

    def manifest(self, version: Version) -> Manifest:
        """The manifest of the version.

        Raises:
            RegistryError: it has none.
        """
        with self.model_folder(version) as folder:
            return read_manifest(folder)

    def load(self, version: Version) -> tuple[Manifest, Any]:
        """The manifest and the fitted pipeline of the version.

        Raises:
            RegistryError: it has no manifest.
        """
        with self.model_folder(version) as folder:
            return read_manifest(folder), load_pipeline(folder / MODEL_FILE)

    def experiment(self, name: str, *, artifacts: Path | None) -> str:
        """The id of the experiment `name`; a new one keeps its artifacts in `artifacts`, if given."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (artifacts / name).as_uri() if artifacts is not None else None
        return str(self.client.create_experiment(name, artifact_location=location, tags=TRAINING_VIEW))


def _version(item: Any) -> Version:
    return Version(
        model=item.name, number=str(item.version), run_id=item.run_id, source=item.source, tags=dict(item.tags)
    )
