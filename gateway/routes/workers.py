"""The workers that are alive, by their heartbeats."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from workers.slots import worker_of

router = APIRouter(prefix="/admin/workers", tags=["Workers"])


class Worker(BaseModel):
    """A serving worker and its prediction processes."""

    name: str
    pool: str
    slots: list[str]


class Workers(BaseModel):
    """All serving workers whose heartbeat is seen."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"workers": [{"name": "host-1", "pool": "default", "slots": ["host-1.0", "host-1.1"]}]}]
        }
    )

    workers: list[Worker]


@router.get("", summary="List the serving workers that are alive")
async def list_workers(request: Request, _: Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]) -> Workers:
    """At most a second old; a worker that has not announced itself for three seconds is gone from it."""
    found = parts(request)
    by_worker: dict[str, list[str]] = {}
    for slot in found.submission.slots:
        by_worker.setdefault(worker_of(slot), []).append(slot)
    pool = found.settings.pool
    return Workers(workers=[Worker(name=name, pool=pool, slots=slots) for name, slots in sorted(by_worker.items())])
