"""What is served, as one immutable picture in memory: gateways look models up here, not in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from model_store.errors import LabelNotFound, ModelNotFound, VersionNotReady
from model_store.further_signatures import NO_FURTHER, FurtherSignatures
from model_store.job_policies import NO_POLICY, JobPolicy, load_policies
from model_store.model_settings import ORDINARY, Serving, load_serving, load_specifications
from model_store.signature import Signature
from model_store.tables import Label, State, Version
from model_store.traffic import Split
from model_store.traffic_picture import NO_COURSE, Course, Watch, load_courses

RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """One version; `signature` and `available_at` (milliseconds) are known once it was AVAILABLE."""

    number: int
    state: State
    error_code: str | None
    error_message: str | None
    signature: Signature | None
    max_batch: int
    max_parallelism: int
    batch_seconds: float | None
    available_at: int | None
    digest: str = ""  # of the artifact
    withdrawn: bool = False  # a bare name does not mean it
    input_specification: str | None = None  # JSON, model_store/input_specification.py
    further: FurtherSignatures = NO_FURTHER


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model with at least one version; `latest` is the highest AVAILABLE one that is not withdrawn.

    A bare name means that one unless there is a `split` over several; `watch` is what to do with answers.
    """

    name: str
    versions: Mapping[int, CatalogVersion]
    labels: Mapping[str, int]
    latest: int | None
    policy: JobPolicy = NO_POLICY
    serving: Serving = ORDINARY
    split: Split | None = None
    watch: Watch | None = None

    @property
    def main(self) -> int | None:
        """What a bare name means, or the most part of its calls; None where nothing serves."""
        return self.latest if self.split is None else self.split.main

    def labels_of(self, number: int) -> tuple[str, ...]:
        """The labels that point to a version."""
        return tuple(label for label, version in self.labels.items() if version == number)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All models by name."""

    models: Mapping[str, CatalogModel]

    def find(self, model: str, version: int | None = None, label: str | None = None) -> CatalogVersion:
        """The version that is meant, in whatever state; without version and label the highest AVAILABLE one,
        or that with the largest share of the model's split.

        Raises ModelNotFound for an unknown model or version, LabelNotFound, and VersionNotReady for a bare name while
        its first version is being prepared.
        """
        found = self.models.get(model)
        if found is None:
            raise not_found(model, version)
        if label is not None:
            if label not in found.labels:
                raise label_not_found(label)
            version = found.labels[label]
        elif version is None:
            version = found.main
            if version is None:
                raise _none_available(found)
        if version not in found.versions:
            raise not_found(model, version)
        return found.versions[version]

    def most_instances(self, model: str, allowed: int) -> int:
        """How many instances one request may have where the gateway's settings allow `allowed`."""
        found = self.models.get(model)
        return allowed if found is None else found.serving.instances(allowed)

    def resolve(self, model: str, version: int | None = None, label: str | None = None) -> CatalogVersion:
        """The AVAILABLE version that is meant.

        Raises as `find` does, VersionNotReady for one still being prepared, and ModelNotFound for one that has left or
        failed: asking again would not help.
        """
        found = self.find(model, version, label)
        if found.state is State.AVAILABLE:
            return found
        if found.state in {State.START, State.LOADING}:
            raise _not_ready(model, found.number)
        raise not_found(model, found.number)


def load_catalog(session: Session) -> Catalog:
    """Reads the picture of this moment."""
    columns = (
        Version.model,
        Version.number,
        Version.state,
        Version.error_code,
        Version.error_message,
        Version.signature,
        Version.max_batch,
        Version.max_parallelism,
        Version.batch_seconds,
        Version.available_at,
        Version.digest,
        Version.withdrawn,
        Version.further_signatures,
    )  # fmt: skip - one line a group; above all not `report`, which is long and never needed here
    serving, specifications = load_serving(session), load_specifications(session)
    versions: dict[str, dict[int, CatalogVersion]] = {}
    for row in session.execute(select(*columns).order_by(Version.model, Version.number)):
        versions.setdefault(row.model, {})[row.number] = CatalogVersion(
            number=row.number,
            state=State(row.state),
            error_code=row.error_code,
            error_message=row.error_message,
            signature=None if row.signature is None else Signature.from_json(row.signature),
            max_batch=row.max_batch,
            max_parallelism=serving.get(row.model, ORDINARY).parallelism(row.max_parallelism),
            batch_seconds=row.batch_seconds,
            available_at=row.available_at,
            digest=row.digest,
            withdrawn=row.withdrawn,
            input_specification=specifications.of(row.model, row.number),
            further=FurtherSignatures.from_json(row.further_signatures),
        )
    labels: dict[str, dict[str, int]] = {}
    for label in session.scalars(select(Label).order_by(Label.model, Label.name)):
        labels.setdefault(label.model, {})[label.name] = label.version
    policies, courses = load_policies(session), load_courses(session)
    return Catalog(
        {
            name: _model(
                name,
                numbered,
                labels.get(name, {}),
                policies.get(name, NO_POLICY),
                serving.get(name, ORDINARY),
                courses.get(name, NO_COURSE),
            )
            for name, numbered in versions.items()
        }
    )


def not_found(model: str, version: int | None = None) -> ModelNotFound:
    """TensorFlow Serving's words for an unknown model or version; also said of one that the caller may not know of."""
    wanted = f"Latest({model})" if version is None else f"Specific({model}, {version})"
    return ModelNotFound(f"Servable not found for request: {wanted}")


def label_not_found(label: str) -> LabelNotFound:
    """TensorFlow Serving's words for an unknown label."""
    return LabelNotFound(f"Unrecognized servable version label: {label}")


def _model(
    name: str,
    versions: dict[int, CatalogVersion],
    labels: dict[str, int],
    policy: JobPolicy,
    serving: Serving,
    course: Course,
) -> CatalogModel:
    available = [n for n, version in versions.items() if version.state is State.AVAILABLE and not version.withdrawn]
    return CatalogModel(
        name,
        versions,
        labels,
        max(available, default=None),
        policy,
        serving,
        course.split(available, labels),
        course.watch(available),
    )


def _none_available(model: CatalogModel) -> ModelNotFound | VersionNotReady:
    coming = [version.number for version in model.versions.values() if version.state in {State.START, State.LOADING}]
    return _not_ready(model.name, max(coming)) if coming else not_found(model.name)


def _not_ready(model: str, number: int) -> VersionNotReady:
    return VersionNotReady(
        f"version {number} of model {model} is being prepared; try again shortly", retry_after_seconds=RETRY_SECONDS
    )
