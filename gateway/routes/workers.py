"""The workers that are alive, by their heartbeats, and what each has loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from gateway.submission import Submission
from model_store.errors import SluiceError
from workers.lanes import Keys
from workers.loaded_versions import SlotFigures, figures_of, whole_question
from workers.slots import worker_of

router = APIRouter(prefix="/admin/workers", tags=["Workers"])

# Asked at once: what a slot has loaded may be a thousand names.
SLOTS_ASKED = 64
EXAMPLE: JsonDict = {
    "workers": [
        {
            "name": "host-1",
            "pool": "default",
            "slots": ["host-1.0", "host-1.1"],
            "versions": ["linear:1", "mnist:2"],
            "processes": 2,
            "budget_bytes": 2147483648,
            "memory_bytes": 51234816,
            "pinned_bytes": 0,
            "hits": 1941,
            "misses": 3,
            "loads": 3,
            "load_seconds": 0.41,
            "evictions": 0,
        }
    ]
}


class Worker(BaseModel):
    """A serving worker and its prediction processes.

    Figures are sums over those of its processes that have run a session; they count from the start of each process.
    """

    name: str
    pool: str
    slots: list[str]
    versions: list[str] = Field(
        [], description="Loaded versions as `model:version`, of each process the thousand that are used most."
    )
    processes: int = Field(0, description="Processes that said what they have loaded.")
    budget_bytes: int = Field(0, description="Memory that these may spend on models.")
    memory_bytes: int = Field(0, description="Memory that loaded models take.")
    pinned_bytes: int = Field(0, description="Of it, that of pinned models.")
    hits: int = Field(0, description="Batches whose version was in memory.")
    misses: int = Field(0, description="Batches that loaded their version, or waited for it.")
    loads: int = 0
    load_seconds: float = Field(0.0, description="What these loads took together.")
    evictions: int = Field(0, description="Models that left memory to make room for others.")


class Workers(BaseModel):
    """All serving workers whose heartbeat is seen."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    workers: list[Worker]


@router.get("", summary="List the serving workers that are alive, and what they have loaded")
async def list_workers(request: Request, _: Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]) -> Workers:
    """At most a second old; a worker that has not announced itself for three seconds is gone from it."""
    submission = parts(request).submission
    by_worker: dict[tuple[str, str], list[str]] = {}
    for pool, slots in submission.slots_by_pool.items():
        for slot in slots:
            by_worker.setdefault((worker_of(slot), pool), []).append(slot)
    keys = Keys(parts(request).settings.key_prefix)
    told = await _told(submission, keys, [(pool, slot) for (_, pool), slots in by_worker.items() for slot in slots])
    return Workers(
        workers=[
            _worker(name, pool, slots, [told[pool, slot] for slot in slots if (pool, slot) in told])
            for (name, pool), slots in sorted(by_worker.items())
        ]
    )


async def _told(
    submission: Submission, keys: Keys, places: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], SlotFigures]:
    """What slots say, as far as Redis answers: who is alive is known without it."""
    told: dict[tuple[str, str], SlotFigures] = {}
    try:
        for start in range(0, len(places), SLOTS_ASKED):
            page = places[start : start + SLOTS_ASKED]
            replies = await submission.ask([whole_question(keys, *place) for place in page])
            told |= {place: one for place, reply in zip(page, replies, strict=True) if (one := figures_of(reply))}
    except SluiceError:
        return told
    return told


def _worker(name: str, pool: str, slots: list[str], told: Sequence[SlotFigures]) -> Worker:
    # Slots that share a process say the same: each process counts once.
    processes = list({figures.process: figures for figures in told}.values())
    return Worker(
        name=name,
        pool=pool,
        slots=slots,
        versions=sorted({version for figures in processes for version in figures.versions}),
        processes=len(processes),
        budget_bytes=sum(figures.budget_bytes for figures in processes),
        memory_bytes=sum(figures.memory_bytes for figures in processes),
        pinned_bytes=sum(figures.pinned_bytes for figures in processes),
        hits=sum(figures.hits for figures in processes),
        misses=sum(figures.misses for figures in processes),
        loads=sum(figures.loads for figures in processes),
        load_seconds=round(sum(figures.load_seconds for figures in processes), 3),
        evictions=sum(figures.evictions for figures in processes),
    )
