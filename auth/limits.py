"""Limits: how much one client may ask for, of everything or of one model; their picture is part of its rights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from auth import clients
from auth.errors import LimitInvalid
from auth.limit_tables import ClientLimit
from model_store.generation import bump_generation
from model_store.registry import check_name

EVERYTHING = ""
MOST_LIMITS = 1000
HIGHEST_RATE = 1_000_000
HIGHEST_COUNT = 2**31 - 1
HIGHEST_QUOTA = 2**53
# Ten years.
LONGEST_KEPT_SECONDS = 315_360_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a client on a model or on everything; None is no bound.

    `burst` is how many requests may come at once before `requests_per_second` counts; None is one second's worth.
    Days are those of UTC. Bytes are those of requests' bodies; `body_bytes` is the largest one.
    `job_keep_seconds` is how long ended jobs are kept, with inputs and results: one for everything, none for a model.
    """

    requests_per_second: float | None = None
    burst: int | None = None
    instances_per_day: int | None = None
    concurrent_requests: int | None = None
    queued_jobs: int | None = None
    running_jobs: int | None = None
    body_bytes: int | None = None
    bytes_per_day: int | None = None
    job_keep_seconds: int | None = None

    @property
    def unbounded(self) -> bool:
        return all(bound is None for bound in astuple(self))

    def over(self, defaults: Bounds) -> Bounds:
        """These bounds, and the defaults' where there are none; a rate brings its own burst."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        theirs = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
        if self.requests_per_second is not None:
            theirs["burst"] = None
        return Bounds(**{name: theirs[name] if bound is None else bound for name, bound in mine.items()})


FIELDS = tuple(field.name for field in fields(Bounds))

ClientLimits = Mapping[str, Bounds]
"""A client's bounds by model; those on everything under EVERYTHING."""


def set_limits(session: Session, client_id: str, limits: Mapping[str, Bounds]) -> None:
    """Replaces all limits of a client. A model need not exist yet.

    Raises ClientNotFound, NameInvalid, and LimitInvalid for a burst without a rate and for bounds that cannot be.
    """
    client = clients.get(session, client_id)
    if len(limits) > MOST_LIMITS:
        raise LimitInvalid(f"a client may have at most {MOST_LIMITS} limits")
    for model, bounds in limits.items():
        if model != EVERYTHING:
            check_name(model)
        _check(bounds)
        if model != EVERYTHING and bounds.job_keep_seconds is not None:
            raise LimitInvalid("job_keep_seconds is about all jobs of a client: give it without a model")
    session.execute(delete(ClientLimit).where(ClientLimit.client_id == client.id))
    for model, bounds in limits.items():
        if not bounds.unbounded:
            session.add(ClientLimit(client_id=client.id, model=model, **{n: getattr(bounds, n) for n in FIELDS}))
    session.flush()
    bump_generation(session)


def limits_of(session: Session, client_id: str) -> ClientLimits:
    """The client's limits, those on everything first, then by model; raises ClientNotFound."""
    client = clients.get(session, client_id)
    rows = session.scalars(select(ClientLimit).where(ClientLimit.client_id == client.id).order_by(ClientLimit.model))
    return _by_model(rows)


def load_limits(session: Session) -> Mapping[str, ClientLimits]:
    """All limits by client; who has none is not in it."""
    by_client: dict[str, list[ClientLimit]] = {}
    for row in session.scalars(select(ClientLimit)):
        by_client.setdefault(row.client_id, []).append(row)
    return {client_id: _by_model(rows) for client_id, rows in by_client.items()}


def _by_model(rows: Iterable[ClientLimit]) -> ClientLimits:
    return {row.model: Bounds(**{name: getattr(row, name) for name in FIELDS}) for row in rows}


def _check(bounds: Bounds) -> None:
    rate = bounds.requests_per_second
    if rate is not None and not 0 < rate <= HIGHEST_RATE:
        raise LimitInvalid(f"requests_per_second is more than 0 and at most {HIGHEST_RATE}")
    if bounds.burst is not None and rate is None:
        raise LimitInvalid("burst is about requests_per_second: give both")
    _check_range(bounds, ("burst", "concurrent_requests", "running_jobs"), 1, HIGHEST_COUNT)
    _check_range(bounds, ("job_keep_seconds",), 0, LONGEST_KEPT_SECONDS)
    _check_range(bounds, ("queued_jobs",), 0, HIGHEST_COUNT)
    _check_range(bounds, ("instances_per_day", "body_bytes", "bytes_per_day"), 0, HIGHEST_QUOTA)


def _check_range(bounds: Bounds, names: Iterable[str], least: int, most: int) -> None:
    for name in names:
        value = getattr(bounds, name)
        if value is not None and not least <= value <= most:
            raise LimitInvalid(f"{name} is a number from {least} to {most}")
