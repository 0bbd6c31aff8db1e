"""Keys of idempotent submits: of several that carry the same one, the first makes a job and the others are told of it.

After draft-ietf-httpapi-idempotency-key-header. A key belongs to one client and lasts for 24 hours. It is written in
the transaction that accepts its job, so that there is never one without the other.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Executable,
    Index,
    LargeBinary,
    String,
    Table,
    bindparam,
    delete,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base, clock_ms, now_ms
from model_store.errors import SluiceError

KEPT_SECONDS = 24 * 3600
PAGE_ROWS = 500


class IdempotencyKeyReused(SluiceError):
    """The key came before with another request: of the draft's section 2.7, the case that asks for 422."""

    status = 422
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key came with another request before; use a new key for a new request")


class IdempotencyKey(Base):
    """What a client's key stands for: the hash of the request that brought it first, and that one's job."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idempotency_keys_by_age", "created_at"),)

    client_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request: Mapped[bytes] = mapped_column(LargeBinary)  # 32 bytes of SHA-256
    job_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[int] = mapped_column(BigInteger)


Named = tuple[str, str]
"""A client and its key."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job's claim to a key; `request` as of `fingerprint`."""

    client_id: str
    key: str
    request: bytes
    job_id: str

    @property
    def named(self) -> Named:
        return self.client_id, self.key


def fingerprint(parts: Iterable[bytes]) -> bytes:
    """SHA-256 of a request's parts in their order; no two lists of parts are taken for each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.digest()


def take(session: Session, claims: Sequence[Claim]) -> dict[Named, Claim]:
    """Take keys for new jobs, each name once in `claims`; returns for each key the claim that holds it now.

    That is the given one, or an earlier one of the last 24 hours. Waits for other transactions that take the same keys.
    """
    if not claims:
        return {}
    connection = session.connection()
    # In the order of their names: two gateways that take the same keys must not wait for each other.
    rows = [_row(claim) for claim in sorted(claims, key=lambda claim: claim.named)]
    connection.execute(_TAKE[connection.dialect.name], rows)
    names = [claim.named for claim in claims]
    found = connection.execute(_HELD, {"names": names})
    return {(held.client_id, held.key): Claim(*held) for held in found}


def give_back(session: Session, claims: Collection[Claim]) -> None:
    """Forget keys whose jobs did not come to be after all."""
    for claim in claims:
        session.execute(
            delete(IdempotencyKey)
            .where(
                IdempotencyKey.client_id == claim.client_id,
                IdempotencyKey.key == claim.key,
                IdempotencyKey.job_id == claim.job_id,
            )
            .execution_options(synchronize_session=False)
        )


def purge(session: Session) -> int:
    """Forget a page of keys that are older than 24 hours; returns how many."""
    old = (
        select(IdempotencyKey.client_id, IdempotencyKey.key)
        .where(IdempotencyKey.created_at < clock_ms(session) - KEPT_SECONDS * 1000)
        .limit(PAGE_ROWS)
        # One that comes again right now is locked, in an order of its own: to wait for it could be for ever.
        .with_for_update(skip_locked=True)
    )
    gone = session.execute(
        delete(IdempotencyKey)
        .where(tuple_(IdempotencyKey.client_id, IdempotencyKey.key).in_(old))
        .execution_options(synchronize_session=False)
    )
    return int(gone.rowcount)  # type: ignore[attr-defined] # a DELETE's result knows how many rows it took


def _row(claim: Claim) -> dict[str, object]:
    return {
        "of_client": claim.client_id,
        "its_key": claim.key,
        "its_request": claim.request,
        "its_job": claim.job_id,
    }


def _take(insert: Callable[..., Any]) -> Executable:
    """Insert a key, or replace one that is too old to count: the sweep may not have come to it yet."""
    new = insert(_KEYS).values(
        client_id=bindparam("of_client"),
        key=bindparam("its_key"),
        request=bindparam("its_request"),
        job_id=bindparam("its_job"),
        created_at=now_ms(),
    )
    taken: Executable = new.on_conflict_do_update(
        index_elements=["client_id", "key"],
        set_={name: getattr(new.excluded, name) for name in ("request", "job_id", "created_at")},
        where=IdempotencyKey.created_at < now_ms() - KEPT_SECONDS * 1000,
    )
    return taken


_KEYS: Table = IdempotencyKey.__table__  # type: ignore[assignment] # a declarative class's table is a Table
_TAKE = {"sqlite": _take(sqlite.insert), "postgresql": _take(postgresql.insert)}
_NAMES: BindParameter[Sequence[Named]] = bindparam("names", expanding=True)
_HELD = select(IdempotencyKey.client_id, IdempotencyKey.key, IdempotencyKey.request, IdempotencyKey.job_id).where(
    tuple_(IdempotencyKey.client_id, IdempotencyKey.key).in_(_NAMES)
)
