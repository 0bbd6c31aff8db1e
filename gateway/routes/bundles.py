"""Edge export: a variant of a version as a signed bundle, and the keys that verify bundles."""

from __future__ import annotations

import contextlib
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from auth.grants import Action
from auth.scopes import Scope
from gateway import bundles
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import open_session, parts
from gateway.model_rights import RequireOnModel
from gateway.routes.admin_models import WITHOUT_NUL, ModelName, Number
from model_store.database import transaction

log = logging.getLogger(__name__)

router = APIRouter(tags=["Models"])

BUNDLE_KEYS_PATH = "/.well-known/bundle-keys.json"
CACHE_PUBLIC = {"cache-control": "public, max-age=300"}

# A bundle is the model itself: who may only use one, and see its shapes, does not get its weights.
Exporter = Annotated[Caller, Depends(RequireOnModel(Scope.MODELS_READ, Action.UPLOAD, Scope.MODELS_WRITE))]

BUNDLE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The zip.",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    },
    404: {"description": "There is no such model, version or variant; `detail` says which variants there are."},
    409: {"description": "The version has no golden samples: prepare it again."},
    503: {"description": "The version is still being prepared, or no key signs at this moment."},
}
KEYS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {
                "example": {
                    "keys": [
                        {
                            "kty": "OKP",
                            "crv": "Ed25519",
                            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                            "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                            "use": "sig",
                            "alg": "EdDSA",
                            "iat": 1795353000,
                        }
                    ]
                }
            }
        }
    }
}


@router.get(
    "/admin/models/{model}/versions/{version}/bundle",
    summary="Export a variant for a device",
    responses=BUNDLE,
    response_class=StreamingResponse,
)
def get_bundle(
    request: Request,
    admin: Exporter,
    model: ModelName,
    version: Number,
    variant: Annotated[
        str | None,
        Query(
            pattern=WITHOUT_NUL,
            max_length=64,
            description="A variant of the version; without it the one that serves.",
            examples=["onnx"],
        ),
    ] = None,
) -> StreamingResponse:
    """A zip with the artifact, its signature, class names, golden samples, the parity report, a `predict.py` that
    checks itself, the SHA-256 of each file, and an Ed25519 signature over these (`bundle.jws`).

    `sluice bundle verify` checks it without a gateway, with the keys of `GET /.well-known/bundle-keys.json`. It takes
    the right to administer the model: the action `upload`.
    """
    found = parts(request)
    with transaction(found.sessions, write=False) as session:
        bundle = bundles.describe(session, found.artifacts, model, version, variant)
    claims = {"iss": found.settings.issuer, "iat": int(found.snapshot.clock.now()), **bundle.claims}
    pieces = bundles.zipped(bundle, found.keys.bundles.sign(claims), found.artifacts)
    note(request, variant=bundle.claims["variant"])
    # It changes nothing, but who took a model away is in the audit log.
    with contextlib.contextmanager(open_session)(request):
        log.info("%s exported by %s", bundle.name, admin.client_id)
    headers = {"content-disposition": f'attachment; filename="{bundle.name}"', "cache-control": "no-store"}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


@router.get(BUNDLE_KEYS_PATH, summary="Keys that verify bundles", responses=KEYS)
async def publish_bundle_keys(request: Request) -> JSONResponse:
    """A JWK Set of every key that ever signed bundles: `iat` and `exp` say between which moments, `revoked` that it
    must not be trusted. Install it on devices, or keep a copy with your bundles.
    """
    return JSONResponse(parts(request).keys.bundles.published, headers=CACHE_PUBLIC)
