"""Jobs that read files: accepted with the file's number of rows, so that what cannot be read is refused at once."""

from __future__ import annotations

from dataclasses import dataclass

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from auth.standing import Authority
from gateway.access import Found
from gateway.admission import Caller
from gateway.idempotent_submits import Accepted, Answer, Keyed, settle
from gateway.job_terms import Terms, terms
from gateway.parts import Parts
from gateway.submit_options import SubmitOptions
from gateway.webhook_terms import is_told
from model_store.catalog import CatalogVersion
from model_store.database import transaction
from model_store.errors import SluiceError
from model_store.files import delete_file, open_file
from workers import jobs
from workers.drafts import FILE, NO_LANE
from workers.errors import QueueFull
from workers.files.contract import FileInvalid
from workers.files.formats import format_named
from workers.files.keeping import FileInUse, add_batch, forget_file
from workers.files.tables import Batch, File
from workers.idempotency import Claim, give_back
from workers.job_statements import in_lane
from workers.lanes import Lane, Priority
from workers.protocols.body import Dialect
from workers.protocols.contract import Contract
from workers.tables import Job
from workers.webhooks.outbox import note_addresses

FULL_SECONDS = 30
COUNTING = CapacityLimiter(4)
# What a column of jobs holds.
MOST_ROWS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class FileSubmit:
    """A file that is to be read by a model: `owns` says that it came with the job, and goes with it."""

    model: str
    found: Found
    caller: Caller
    file: File
    options: SubmitOptions
    owns: bool
    # What has to be the same where the idempotency key comes again, beside the file's bytes.
    asked: tuple[object, ...] = ()
    # Of OpenAI's batches: the address that each line names, and what the caller wrote on it, as JSON.
    endpoint: str | None = None
    notes: str | None = None


async def rows_of(parts: Parts, model: str, version: CatalogVersion, file: File) -> int | None:
    """How many rows a file has, None where only reading it tells; raises FileInvalid where it cannot be read at all."""
    if version.signature is None:
        raise SluiceError("the version has no signature")
    most = parts.snapshot.catalog.most_instances(model, parts.settings.max_instances)
    contract = Contract(model, version.number, version.signature, most)

    def count() -> int | None:
        with open_file(parts.artifacts, file.id) as source:
            return format_named(file.format).total(source, contract, lambda: None)

    # A large file takes minutes: of the threads that all requests share, a few at most are taken for this.
    rows = await run_sync(count, limiter=COUNTING)
    if rows is not None and rows > MOST_ROWS:
        raise FileInvalid(f"the file has {rows} rows, but a file may have {MOST_ROWS}")
    return rows


async def accept_file_job(parts: Parts, submit: FileSubmit, rows: int | None) -> Accepted:
    """The new job, whose row is committed, or the one that its idempotency key stands for.

    Raises QueueFull (429), IdempotencyKeyReused (422), WebhookRefused, DatabaseUnavailable (503). Where there is no new
    job, a file that came with it is deleted.
    """
    options = submit.options
    notifies = is_told(parts.settings, parts.snapshot, submit.caller.client_id, options.webhook)
    bounds = terms(options, submit.found.policy, parts.settings.file_seconds)
    answer, number = await run_sync(_accept, parts, submit, rows, bounds, notifies)
    if isinstance(answer, SluiceError):
        raise answer
    if number is not None:
        parts.publisher.read_file(number)
    return answer


async def drop(parts: Parts, file: File) -> None:
    """Delete a file that came with a job which was not accepted."""

    def forget() -> None:
        try:
            with transaction(parts.sessions) as session:
                names = forget_file(session, file)
        except FileInUse:
            # The job came to be after all, and only its commit's answer was lost.
            return
        for name in names:
            delete_file(parts.artifacts, name)

    await run_sync(forget)


def _accept(
    parts: Parts, submit: FileSubmit, rows: int | None, bounds: Terms, notifies: bool
) -> tuple[Answer, int | None]:
    """The answer, and the number of the new job where there is one."""
    caller, options, version = submit.caller, submit.options, submit.found.version
    draft = jobs.Draft(
        jobs.new_id(),
        Lane(submit.model, version.number, Priority.BULK, caller.client_id),
        Dialect.ROWS.label,
        rows or 0,
        None,
        bounds.job_seconds,
        Authority(submit.found.rule.id, caller.token_id, caller.issued_at),
        kind=FILE,
        max_attempts=bounds.max_attempts,
        notifies=notifies,
        input_digest=submit.file.digest,
    )
    with transaction(parts.sessions) as session:
        claims: list[Claim] = []
        if options.idempotency_key is not None:
            wanted = (options.max_attempts, options.webhook, submit.file.format, *submit.asked)
            digest = submit.file.digest or b""
            keyed = Keyed(caller.client_id, options.idempotency_key, (b"file", repr(wanted).encode(), digest))
            claims = [keyed.claim(draft.id)]
            told = settle(session, claims)
            if told:
                return told[draft.id], None
        full = full_of_files(parts, session, caller.client_id)
        if full is not None:
            give_back(session, claims)
            return full, None
        jobs.accept(session, [draft], 0)
        if options.webhook is not None:
            note_addresses(session, [(draft.id, options.webhook)])
        number = _keep(session, submit, draft.id)
    return Accepted(draft.id), number


def _keep(session: Session, submit: FileSubmit, job_id: str) -> int:
    """Write what goes with the job's row; returns its number."""
    job = session.scalars(select(Job).where(Job.id == job_id)).one()
    batch = Batch(input_file=submit.file.id, owns_input=submit.owns, endpoint=submit.endpoint, notes=submit.notes)
    add_batch(session, job, batch)
    return job.number


def full_of_files(parts: Parts, session: Session, client_id: str) -> QueueFull | None:
    """What to tell a client that has as many files waiting as it may."""
    most = parts.settings.files_waiting
    waiting = select(func.count()).where(in_lane(NO_LANE), Job.client_id == client_id).select_from(Job)
    if session.scalars(waiting).one() < most:
        return None
    return QueueFull(f"{most} files of this client wait already", retry_after_seconds=FULL_SECONDS)
