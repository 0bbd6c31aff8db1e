"""`/docs`, the interface's description to read and try, and `/openapi.json`, the same for programs.

The page is Swagger UI (Apache-2.0), whose files ship with the gateway, so that it works without the internet.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse, Response

from auth.scopes import Scope
from gateway.dependencies import Reader

FILES = Path(__file__).resolve().parent.parent / "static"
ASSETS = {
    "access.js": "text/javascript",
    "chooser.js": "text/javascript",
    "docs.css": "text/css",
    "docs.js": "text/javascript",
    "favicon-32x32.png": "image/png",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
# Swagger UI's style sheet holds its images as `data:` addresses; nothing else comes from anywhere but here.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NO_CACHE = {"cache-control": "no-cache"}
# A new release of Sluice brings new files under the same names.
CACHE_HOUR = {"cache-control": "private, max-age=3600"}

router = APIRouter(
    include_in_schema=False,
    dependencies=[Depends(Reader(lambda settings: settings.docs_public, Scope.MODELS_READ))],
)


@router.get("/docs")
async def show_docs() -> FileResponse:
    headers = {"content-security-policy": PAGE_POLICY, **NO_CACHE}
    return FileResponse(FILES / "docs.html", media_type="text/html", headers=headers)


@router.get("/docs/static/{name}")
async def send_asset(name: str) -> FileResponse:
    if name not in ASSETS:
        raise HTTPException(404, "there is no such file")
    return FileResponse(FILES / name, media_type=ASSETS[name], headers=CACHE_HOUR)


@router.get("/openapi.json")
def show_description(request: Request) -> Response:
    return Response(request.app.openapi.text, media_type="application/json", headers=NO_CACHE)
