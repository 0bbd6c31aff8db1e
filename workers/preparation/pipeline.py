"""Preparing one version, from the uploaded file to a version that serves or a finding that says why it does not.

Whatever happens in between, nothing outside the store's blobs and this version's own rows has changed: the work can be
killed at any point and begin again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from model_store import registry, samples
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable, SluiceError, StoreFull, StoreUnavailable
from model_store.model_settings import serving_of
from model_store.samples import Kind, StoredExample
from model_store.tables import State, Version
from model_store.upload_options import UploadOptions
from model_store.variant_policies import VariantPolicy, policy_of
from monitoring.logs import bind
from monitoring.metrics import PREPARATIONS
from workers.preparation import schedule
from workers.preparation.attempt import Asked, Attempt, Interrupted, Prepared
from workers.preparation.findings import refused
from workers.preparation.lease import Lease, LeaseLost
from workers.preparation.report import Report
from workers.preparation.schedule import Claim
from workers.rehearsal import RehearsalFailed
from workers.settings import WorkerSettings
from workers.warm_up import warm_up

log = logging.getLogger(__name__)

# Refusals that say nothing about the upload, by what they count as.
UNJUDGED = {"preparation_crashed": "crashed", "lockdown_unavailable": "lockdown_unavailable"}
POSTPONE_SECONDS = 5.0
# How long a database that went away is waited for before the lease is left to run out.
DATABASE_SECONDS = 60.0


def prepare(sessions: Sessions, artifacts: Artifacts, settings: WorkerSettings, model: str, number: int) -> None:
    """Prepares a version whose work is due, and ends with it AVAILABLE, or in END with a finding.

    One that is prepared again serves meanwhile, and stays as it was where that fails. Returns at once where the work is
    not due or somebody else holds it. After a passing trouble (a full disk, a database that is away) the work is due
    again a few seconds later.
    """
    try:
        claimed = _claim(sessions, model, number)
    except DatabaseUnavailable:
        log.info("a preparation could not be claimed: the database is away; it stays due")
        return
    if claimed is None:
        return
    claim, upload_format, digest, options, asked = claimed
    with bind(model=model, version=number), Lease(sessions, claim) as lease:
        report = Report(lease.announce)
        try:
            if claim.attempt > schedule.ATTEMPTS:
                raise refused("preparation_crashed", f"the preparation was broken off {schedule.ATTEMPTS} times")
            prepared = Attempt(artifacts, settings, report, digest, asked).run(upload_format, options)
            if not claim.again:
                with report.step("warm") as step:
                    step.detail = _warm(sessions, artifacts, claim, prepared, report, settings)
            outcome = _publish(sessions, claim, prepared, report, settings)
        except LeaseLost:
            outcome = "taken_over"
        except (DatabaseUnavailable, StoreFull, StoreUnavailable, Interrupted) as error:
            log.warning("the preparation is put off: %s", error)
            outcome = _postpone(sessions, claim)
        except SluiceError as error:
            outcome = _refuse(sessions, claim, error, report)
    PREPARATIONS.labels(outcome).inc()


def _claim(sessions: Sessions, model: str, number: int) -> tuple[Claim, str, str, UploadOptions, Asked] | None:
    """The claim with the upload's format, digest and options, and what is asked for; None where nothing is to do."""
    with transaction(sessions) as session:
        claim = schedule.claim(session, model, number)
        version = session.get(Version, (model, number))
        if claim is None or version is None:
            return None
        if not claim.again and not registry.set_state(session, model, number, State.LOADING):
            schedule.finish(session, claim)  # it was retired before it was prepared
            return None
        asked = _asked(session, claim, version.signature)
        return claim, version.format, version.digest, UploadOptions.from_json(version.options), asked


def _asked(session: Session, claim: Claim, signature: str | None) -> Asked:
    own = None if claim.policy is None else VariantPolicy.from_json(json.loads(claim.policy))
    return Asked(
        own or policy_of(session, claim.model),
        calibration=samples.find(session, claim.model, Kind.CALIBRATION),
        inputs=samples.find(session, claim.model, Kind.INPUTS),
        signature=signature if claim.again else None,
        pool=serving_of(session, claim.model).pool,
    )


def _warm(
    sessions: Sessions,
    artifacts: Artifacts,
    claim: Claim,
    prepared: Prepared,
    report: Report,
    settings: WorkerSettings,
) -> str:
    """Has the version loaded where its callers will be sent, before anybody is; says what came of it.

    Raises UploadRefused where it fails on its golden samples there: it must not replace what serves.
    """
    with transaction(sessions) as session:
        if not schedule.renew(session, claim):
            raise LeaseLost
        if not _write_down(session, claim, prepared, report, settings, warming=True):
            return "not warmed up: it was retired meanwhile"
    try:
        return warm_up(sessions, artifacts, settings, claim.model, claim.version).told
    except RehearsalFailed as error:
        raise refused("warm_up_failed", f"where it would serve, its golden samples are answered {error}") from error


def _publish(sessions: Sessions, claim: Claim, prepared: Prepared, report: Report, settings: WorkerSettings) -> str:
    def write() -> str:
        with transaction(sessions) as session:
            if not schedule.finish(session, claim):
                raise LeaseLost
            serves = _write_down(session, claim, prepared, report, settings)
            if serves and prepared.example is not None:
                _keep_example(session, claim, prepared.example)
        return "available" if serves else "retired"

    return _patiently(write)


def _keep_example(session: Session, claim: Claim, example: StoredExample) -> None:
    uploaded_by = session.get_one(Version, (claim.model, claim.version)).uploaded_by
    samples.keep_example(session, claim.model, claim.version, example, uploaded_by)


def _write_down(
    session: Session,
    claim: Claim,
    prepared: Prepared,
    report: Report,
    settings: WorkerSettings,
    *,
    warming: bool = False,
) -> bool:
    assert report.signature is not None  # noqa: S101 - for the type checker: a prepared version has one
    return registry.make_available(
        session,
        claim.model,
        claim.version,
        signature=report.signature,
        variant=prepared.chosen.name,
        variants=prepared.variants,
        max_batch=prepared.measured.max_batch,
        # A SavedModel takes a process and most of a gigabyte in each slot that runs it.
        max_parallelism=1 if prepared.chosen.runtime == "tensorflow" else settings.worker_processes,
        batch_seconds=prepared.measured.batch_seconds,
        report=report.to_json(),
        golden=prepared.golden,
        environment=prepared.environment,
        further=prepared.further,
        warming=warming,
        again=claim.again,
    )


def _refuse(sessions: Sessions, claim: Claim, finding: SluiceError, report: Report) -> str:
    log.info("the upload is refused: %s: %s", finding.code, finding.message)

    def write() -> str:
        with transaction(sessions) as session:
            if not schedule.finish(session, claim):
                return "taken_over"
            if claim.again:
                registry.note_failed_repeat(session, claim.model, claim.version, report.failure(finding))
            else:
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
