"""Preparing one version, from the uploaded file to a version that serves or a finding that says why it does not.

Whatever happens in between, nothing outside the store's blobs and this version's own rows has changed: the work can be
killed at any point and begin again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from model_store import registry
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable, SluiceError, StoreFull
from model_store.tables import State, Variant, Version
from monitoring.logs import bind
from monitoring.metrics import PREPARATIONS
from workers.errors import LockdownUnavailable, RunnerFailed
from workers.preparation import proof, schedule
from workers.preparation.candidates import Candidate, SavedModelCandidate
from workers.preparation.findings import refused, shown
from workers.preparation.keras_uploads import KerasArchive, KerasH5
from workers.preparation.lease import Lease, LeaseLost
from workers.preparation.measure import Measured
from workers.preparation.onnx_upload import OnnxUpload
from workers.preparation.report import Report, VariantFigures, told
from workers.preparation.schedule import Claim
from workers.preparation.uploads import Upload
from workers.runner.process import Runner
from workers.runner.scratch import Scratch
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)

FORMATS: dict[str, type[Upload]] = {"keras": KerasArchive, "h5": KerasH5, "onnx": OnnxUpload}
# Refusals that say nothing about the upload, by what they count as.
UNJUDGED = {"preparation_crashed": "crashed", "lockdown_unavailable": "lockdown_unavailable"}
POSTPONE_SECONDS = 5.0
ALONE_BYTES = 32 * 1024**2
# How long a database that went away is waited for before the lease is left to run out.
DATABASE_SECONDS = 60.0


class Interrupted(Exception):
    """What stopped the preparation was not the upload: it is tried again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What serves: the stored variant, and how it may be run."""

    variant: Variant
    measured: Measured


def prepare(sessions: Sessions, artifacts: Artifacts, settings: WorkerSettings, model: str, number: int) -> None:
    """Prepares a version whose work is due, and ends with it AVAILABLE, or in END with a finding.

    Returns at once where the work is not due or somebody else holds it. After a passing trouble (a full disk, a
    database that is away) the work is due again a few seconds later.
    """
    try:
        claimed = _claim(sessions, model, number)
    except DatabaseUnavailable:
        log.info("a preparation could not be claimed: the database is away; it stays due")
        return
    if claimed is None:
        return
    claim, upload_format, digest = claimed
    with bind(model=model, version=number), Lease(sessions, claim) as lease:
        report = Report(lease.announce)
        try:
            if claim.attempt > schedule.ATTEMPTS:
                raise refused("preparation_crashed", f"the preparation was broken off {schedule.ATTEMPTS} times")
            prepared = _Work(artifacts, settings, report, digest).run(upload_format)
            outcome = _publish(sessions, claim, prepared, report, settings)
        except LeaseLost:
            outcome = "taken_over"
        except (DatabaseUnavailable, StoreFull, Interrupted) as error:
            log.warning("the preparation is put off: %s", error)
            outcome = _postpone(sessions, claim)
        except SluiceError as error:
            outcome = _refuse(sessions, claim, error, report)
    PREPARATIONS.labels(outcome).inc()


def _claim(sessions: Sessions, model: str, number: int) -> tuple[Claim, str, str] | None:
    """The claim with the upload's format and digest; None where there is nothing to do."""
    with transaction(sessions) as session:
        claim = schedule.claim(session, model, number)
        version = session.get(Version, (model, number))
        if claim is None or version is None:
            return None
        if not registry.set_state(session, model, number, State.LOADING):
            schedule.finish(session, claim)  # it was retired before it was prepared
            return None
        return claim, version.format, version.digest


def _publish(sessions: Sessions, claim: Claim, prepared: Prepared, report: Report, settings: WorkerSettings) -> str:
    def write() -> str:
        with transaction(sessions) as session:
            if not schedule.finish(session, claim):
                raise LeaseLost
            assert report.signature is not None  # noqa: S101 - for the type checker: a prepared version has one
            serves = registry.make_available(
                session,
                claim.model,
                claim.version,
                signature=report.signature,
                variant=prepared.variant.name,
                variants=[prepared.variant],
                max_batch=prepared.measured.max_batch,
                # A SavedModel takes a process and most of a gigabyte in each slot that runs it.
                max_parallelism=1 if prepared.variant.runtime == "tensorflow" else settings.worker_processes,
                batch_seconds=prepared.measured.batch_seconds,
                report=report.to_json(),
            )
        return "available" if serves else "retired"

    return _patiently(write)


def _refuse(sessions: Sessions, claim: Claim, finding: SluiceError, report: Report) -> str:
    log.info("the upload is refused: %s: %s", finding.code, finding.message)

    def write() -> str:
        with transaction(sessions) as session:
            if schedule.finish(session, claim):
                registry.refuse(
                    session,
                    claim.model,
                    claim.version,
                    code=finding.code,
                    message=finding.message,
                    report=report.to_json(),
                )
        return UNJUDGED.get(finding.code, "refused")

    return _patiently(write)


def _postpone(sessions: Sessions, claim: Claim) -> str:
    def write() -> str:
        with transaction(sessions) as session:
            schedule.postpone(session, claim, POSTPONE_SECONDS)
        return "postponed"

    return _patiently(write)


def _patiently(write: Callable[[], str]) -> str:
    """Repeats a transaction while the database is away; the lease, which nobody can renew then, decides in the end."""
    until = time.monotonic() + DATABASE_SECONDS
    while True:
        try:
            return write()
        except DatabaseUnavailable:
            if time.monotonic() > until:
                return "database_away"
            time.sleep(1.0)


class _Work:
    """One attempt: its runners and its folder live as long as `run`."""

    def __init__(self, artifacts: Artifacts, settings: WorkerSettings, report: Report, digest: str) -> None:
        self._artifacts = artifacts
        self._settings = settings
        self._report = report
        self._digest = digest
        self._held = contextlib.ExitStack()

    def run(self, upload_format: str) -> Prepared:
        """Raises UploadRefused, RunnerFailed and the store's errors; Interrupted, LeaseLost."""
        try:
            with self._held:
                return self._run(upload_format)
        except OSError as error:
            # What a file holds never raises one here: a full disk does, or a folder that is not what it should be.
            raise Interrupted(f"{type(error).__name__}: {error}") from error

    def _run(self, upload_format: str) -> Prepared:
        report = self._report
        kind = FORMATS.get(upload_format)
        if kind is None:
            raise refused("unsupported_format", f"files of format {shown(upload_format)} cannot be prepared")
        with report.step("receive") as step:
            path = self._held.enter_context(self._artifacts.opened(self._digest))
            step.detail = f"{path.stat().st_size:,} bytes"
        runner = self._runner()
        report.lockdown = runner.lockdown
        upload = kind(path, runner, self._folder(), self._settings)
        with report.step("inspect") as step:
            step.detail = upload.inspect()
        with report.step("rebuild") as step:
            step.detail = upload.rebuild()
        trial = self._runner()
        with report.step("load") as step:
            loaded = upload.load(trial)
            report.signature, step.detail = loaded.signature, loaded.detail
            known = proof.reference(upload, loaded, seed=int(self._digest[:8], 16))
            loaded = replace(loaded, signature=known.signature)
            report.signature = loaded.signature
        with report.step("convert") as step:
            candidates, failed = upload.convert(loaded, trial)
            report.variants = [*failed, *(candidate.figures for candidate in candidates)]
            step.detail = ", ".join(_told(figures) for figures in report.variants)
        with report.step("parity") as step:
            for candidate in candidates:
                proof.prove(candidate, known, loaded)
            step.detail = ", ".join(_told(figures) for figures in report.variants)
            accepted = [candidate for candidate in candidates if candidate.figures.accepted]
            if not accepted:
                raise refused("parity_failed", f"no variant can serve: {step.detail}")
        with report.step("measure") as step:
            chosen, measured = self._measure(accepted, known)
            report.measured, step.detail = measured, told(measured)
        report.chosen = chosen.name
        report.reason = proof.reason(chosen.figures, report.variants, measured.max_batch)
        with report.step("store"):
            return self._store(chosen, measured)

    def _measure(self, accepted: list[Candidate], known: proof.Reference) -> tuple[Candidate, Measured]:
        """The first variant that can be measured, which serves, with its measurement; raises what the last one does."""
        chosen: tuple[Candidate, Measured] | None = None
        for candidate in accepted:
            try:
                own = candidate if candidate is not accepted[0] else self._alone(candidate)
                if chosen is None:
                    chosen = candidate, proof.time(own, known, self._settings)
                else:
                    proof.time_beside(own, known, sorted({1, chosen[1].max_batch}))
            except SluiceError as error:
                # With another variant left, a failure here only means that this one does not serve.
                candidate.figures.accepted, candidate.figures.reason = False, error.message
                if candidate is accepted[-1] and chosen is None:
                    raise
                continue
            candidate.figures.memory_bytes = own.memory_bytes
        assert chosen is not None  # noqa: S101 - for the type checker: the last failure was raised
        return chosen

    def _alone(self, preferred: Candidate) -> Candidate:
        """The variant as it will be served: TensorFlow's in a process without Keras and what converting left there.

        With small weights that is 36 of 700 MB, not worth another start of TensorFlow.
        """
        if not isinstance(preferred, SavedModelCandidate) or preferred.path.stat().st_size < ALONE_BYTES:
            return preferred
        own = SavedModelCandidate(self._runner(), preferred.path, preferred.signature, self._settings)
        own.figures = preferred.figures
        own.figures.load_seconds = own.load()
        return own

    def _store(self, chosen: Candidate, measured: Measured) -> Prepared:
        stored = self._artifacts.add_file(chosen.path)
        figures = chosen.figures
        variant = Variant(
            name=figures.name,
            runtime=figures.runtime,
            digest=stored.digest,
            size_bytes=stored.size_bytes,
            memory_bytes=figures.memory_bytes,
        )
        return Prepared(variant, measured)

    def _runner(self) -> Runner:
        try:
            return self._held.enter_context(Runner(self._settings))
        except LockdownUnavailable:
            raise
        except RunnerFailed as error:
            raise Interrupted("a runner could not be started") from error

    def _folder(self) -> Path:
        folders = Scratch(self._settings.scratch_dir)
        self._held.callback(folders.remove)
        return folders.work


def _told(figures: VariantFigures) -> str:
    return f"{figures.name}: {figures.reason or 'ok'}"
