"""Administration of upload keys: whose signatures on model files are believed."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from sqlalchemy.orm import Session

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, TokenFirst, open_session, read_session
from model_store import upload_signatures
from model_store.registry import NAME
from model_store.upload_signatures import UploadKey

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/upload-keys", tags=["Models"], route_class=TokenFirst)

Admin = Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
KeyId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{43}$", description="The key's RFC 7638 thumbprint.")]

EXAMPLE: JsonDict = {"name": "build-server", "public_key": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


class NewUploadKey(BaseModel):
    """A key whose signatures are to be believed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    name: str = Field(pattern=f"^{NAME.pattern}$", description="Whose it is; unique.")
    public_key: str = Field(pattern=r"^[A-Za-z0-9_-]{43}$", description="32 bytes of Ed25519 in base64url.")


class UploadKeyShown(BaseModel):
    """A key whose signatures are believed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", **EXAMPLE, "created_at": "2026-11-22T13:10:00Z"}
            ]
        }
    )

    id: str
    name: str
    created_at: datetime


class UploadKeys(BaseModel):
    """All keys whose signatures are believed, by name."""

    keys: list[UploadKeyShown]


@router.get("", summary="List upload keys")
def list_upload_keys(admin: Admin, session: Reading) -> UploadKeys:  # noqa: ARG001 - asking for it is the check
    return UploadKeys(keys=[_shown(key) for key in upload_signatures.all_keys(session)])


@router.post(
    "", status_code=201, summary="Add an upload key", responses={409: {"description": "The name or key is known."}}
)
def add_upload_key(request: Request, admin: Admin, session: Writing, body: NewUploadKey) -> UploadKeyShown:
    """Files signed with it are taken where `SLUICE_UPLOAD_SIGNATURES` is `required`."""
    key = upload_signatures.add_key(session, body.name, body.public_key)
    note(request, key_id=key.id, label=key.name)
    log.info("upload key %s added by %s", key.id, admin.client_id)
    return _shown(key)


NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such key."}}


@router.delete("/{key_id}", status_code=204, summary="Remove an upload key", responses=NOT_FOUND)
def remove_upload_key(admin: Admin, session: Writing, key_id: KeyId) -> None:
    """Its signatures are believed no longer; versions that it signed stay as they are."""
    upload_signatures.remove_key(session, key_id)
    log.info("upload key %s removed by %s", key_id, admin.client_id)


def _shown(key: UploadKey) -> UploadKeyShown:
    return UploadKeyShown(id=key.id, name=key.name, created_at=datetime.fromtimestamp(key.created_at / 1000, UTC))
