"""Administration of models: uploading versions, following their preparation, retiring and deleting."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Query, Request, Response
from pydantic import BeforeValidator
from sqlalchemy.orm import Session

from auth.grants import Action
from auth.scopes import Scope
from gateway import model_views
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, TokenFirst, open_session, parts, read_session
from gateway.model_rights import RequireOnModel, spelt_as_number
from gateway.model_views import ModelShown, ModelsPage, VersionShown
from gateway.parts import Parts
from gateway.snapshot import READ_SECONDS
from gateway.upload_description import UPLOAD, Accepted, UploadAsked
from gateway.uploads import Upload, receive
from gateway.version_moves import reading, warm, writing
from model_store import line_up, listing, registry
from model_store.errors import DatabaseUnavailable, StoreUnavailable, VersionInUse
from model_store.registry import NAME, check_name
from model_store.sweep import sweep
from model_store.tables import State
from model_store.upload_options import UploadOptions
from model_store.upload_signatures import SignatureMissing, verify
from model_store.version_policies import policy_of
from workers import waiting
from workers.preparation import schedule
from workers.tables import Preparation

log = logging.getLogger(__name__)

NAME_PATTERN = f"^{NAME.pattern}$"
# PostgreSQL refuses a NUL in a text with an error of its own.
WITHOUT_NUL = r"^[^\x00]*$"
HIGHEST_VERSION = 2**31 - 1
# A look, and what a submit takes from there to its commit.
HEARD_SECONDS = READ_SECONDS + 0.25

router = APIRouter(prefix="/admin/models", tags=["Models"], route_class=TokenFirst)

# Looking changes nothing: who may read models may look at those that `metadata` is granted for.
Reader = Annotated[Caller, Depends(Require(Scope.MODELS_READ, Scope.MODELS_WRITE))]
Viewer = Annotated[Caller, Depends(RequireOnModel(Scope.MODELS_READ, Action.METADATA, Scope.MODELS_WRITE))]
UPLOADING = RequireOnModel(Scope.MODELS_WRITE, Action.UPLOAD)
Uploader = Annotated[Caller, Depends(UPLOADING)]
RETIRING = RequireOnModel(Scope.MODELS_WRITE, Action.RETIRE)
Retirer = Annotated[Caller, Depends(RETIRING)]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
ModelName = Annotated[str, Path(pattern=WITHOUT_NUL, description="The model's name.", examples=["mnist"])]
Number = Annotated[
    int,
    BeforeValidator(spelt_as_number),
    Path(ge=1, le=HIGHEST_VERSION, description="The version's number.", examples=[1]),
]
LabelName = Annotated[str, Path(pattern=WITHOUT_NUL, description="The label's name.", examples=["stable"])]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such model or version."}}
IN_USE: dict[int | str, dict[str, Any]] = {
    409: {"description": "Something still uses the version; `detail` says what."}
}


@router.put("/{model}/versions", **UPLOAD)
@router.post("/{model}/versions", **UPLOAD)
async def upload_version(
    request: Request,
    response: Response,
    admin: Uploader,
    model: ModelName,
    asked: Annotated[UploadAsked, Query()],
    signature: Annotated[
        str | None,
        Header(
            alias="sluice-signature",
            description="By an upload key, as `sluice models push --sign-with` makes it.",
            examples=[f"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k.{'A' * 86}"],
        ),
    ] = None,
) -> Accepted:
    check_name(model)
    if signature is None and parts(request).settings.upload_signatures == "required":
        raise SignatureMissing("uploads must be signed here: `sluice models push --sign-with KEY`")
    options = UploadOptions.parse(asked.signature, asked.inputs)
    allowed = parts(request).settings.upload_formats
    upload = await receive(request, parts(request).artifacts, asked.format, allowed)
    return await published(request, response, admin, model, upload, options, signature)


async def published(
    request: Request,
    response: Response,
    admin: Caller,
    model: str,
    upload: Upload,
    options: UploadOptions,
    signature: str | None,
) -> Accepted:
    """The version that a file in the store became, and `response` made to say whether it is new."""
    options.check_for(upload.format)
    # A large file takes minutes to come in: by now the right may be gone.
    UPLOADING.check_again(request, admin)
    accepted, new = await run_sync(_publish, request, model, upload, options, admin.client_id, signature)
    if new:
        parts(request).publisher.prepare(model, accepted.version)
        log.info("version %s of model %s uploaded by %s", accepted.version, model, admin.client_id)
    response.status_code = 202 if new else 200
    response.headers["location"] = accepted.location
    return accepted


@router.get(
    "",
    summary="List models",
    description="Those that the caller may see, with their versions and labels, in the order of their names.",
)
def list_models(
    request: Request,
    reader: Reader,
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[
        str | None, Query(pattern=NAME_PATTERN, description="`next_page_token` of the page before.")
    ] = None,
) -> ModelsPage:
    sight = parts(request).admission.sight(reader)
    # One more than asked for tells whether there is a next page.
    found = listing.models_after(session, page_token or "", limit + 1, sight.model)
    shown = model_views.show_models(session, found[:limit], sight)
    return ModelsPage(models=shown, next_page_token=shown[-1].name if len(found) > limit else None)


@router.get("/{model}", summary="Show a model", responses=NOT_FOUND)
def show_model(request: Request, viewer: Viewer, session: Reading, model: ModelName) -> ModelShown:
    sight = parts(request).admission.sight(viewer)
    return model_views.show_models(session, [listing.find_model(session, model)], sight)[0]


@router.get(
    "/{model}/versions/{version}",
    summary="Show a version",
    description="Its file, signature and variants, how far its preparation is, and the preparation report.",
    responses=NOT_FOUND,
)
def show_version(
    request: Request,
    viewer: Viewer,  # noqa: ARG001 - asking for it is the check
    session: Reading,
    model: ModelName,
    version: Number,
) -> VersionShown:
    shown = model_views.show_version(session, model, version)
    if shown.state is State.AVAILABLE:
        # Whoever followed the preparation predicts next, and must not be told here that it is not ready.
        parts(request).snapshot.refresh()
    return shown


@router.post(
    "/{model}/versions/{version}/retire",
    summary="Retire a version",
    description=(
        "Takes it out of service: new calls do not mean it, and a bare name means the next lower AVAILABLE version. It"
        " is UNLOADING while jobs that were submitted to it wait or run, then in END; until it is deleted, `restore`"
        " brings it back. Versions that the model's policy wants in its place come back first, warmed up. Refused while"
        " a label points to it. To retire it again changes nothing."
    ),
    responses=NOT_FOUND | IN_USE,
)
def retire_version(request: Request, admin: Retirer, model: ModelName, version: Number) -> VersionShown:
    with reading(request) as session:
        successors = line_up.planned(session, model, policy_of(session, model), without=version).restore
    warm(parts(request), model, successors)
    RETIRING.check_again(request, admin)
    with writing(request) as session:
        waited_for = waiting.unfinished(session, model, version)
        if line_up.retire(session, model, version, waited_for=waited_for, successors=successors):
            log.info("version %s of model %s retired by %s", version, model, admin.client_id)
        return model_views.show_version(session, model, version)


@router.delete(
    "/{model}/versions/{version}",
    status_code=204,
    summary="Delete a version",
    description=(
        "Forgets a version in state END: retire it first. Its number is not used again. Its bytes leave the store with"
        " it, or a day after they were written where that is later. Refused while jobs for it wait or run; takes"
        " the second in which every gateway hears that it ended."
    ),
    responses=NOT_FOUND | IN_USE,
)
def delete_version(
    request: Request,
    admin: Retirer,
    model: ModelName,
    version: Number,
    afterwards: BackgroundTasks,
) -> None:
    with reading(request) as session:
        registry.require_ended(session, model, version)
        _require_no_jobs(session, model, version)
    # Gateways that have not heard that it ended take jobs for it until they look again: these would only fail.
    time.sleep(HEARD_SECONDS)
    RETIRING.check_again(request, admin)
    with writing(request) as session:
        _require_no_jobs(session, model, version)
        registry.delete_version(session, model, version)
    log.info("version %s of model %s deleted by %s", version, model, admin.client_id)
    # Only after the commit, which background tasks follow: a row must never name bytes that are gone.
    afterwards.add_task(_sweep, parts(request))


def _publish(
    request: Request, model: str, upload: Upload, options: UploadOptions, client_id: str, signature: str | None
) -> tuple[Accepted, bool]:
    # A transaction of its own, not the request's: on SQLite that would lock out every writer while the file comes in.
    with writing(request) as session:
        signed_by = None if signature is None else verify(session, signature, model, upload.stored.digest)
        version, new = registry.publish(
            session,
            model,
            format=upload.format.value,
            digest=upload.stored.digest,
            size_bytes=upload.stored.size_bytes,
            uploaded_by=client_id,
            signed_by=signed_by,
            options=options.to_json(),
        )
        if new:
            schedule.create(session, model, version.number)
            session.flush()
        note(request, version=version.number, digest=upload.stored.digest, new=new)
        preparation = session.get(Preparation, (model, version.number))
        accepted = Accepted(
            model=model,
            version=version.number,
            state=State(version.state),
            preparation=None if preparation is None else model_views.show_preparation(preparation),
            location=f"/admin/models/{model}/versions/{version.number}",
        )
    return accepted, new


def _sweep(parts: Parts) -> None:
    # What is left now is taken by the next sweep.
    with contextlib.suppress(DatabaseUnavailable, StoreUnavailable):
        sweep(parts.sessions, parts.artifacts)


def _require_no_jobs(session: Session, model: str, version: int) -> None:
    if waiting.unfinished(session, model, version):
        raise VersionInUse(f"jobs for version {version} wait or run; try again when they have ended")
