"""An audit log for tests: a database of its own, entries, a key, and what somebody with the database could do to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.orm import Session

from auth.audit import Entry, Outcome, record
from auth.audit_chain import locked_chain, seal
from auth.audit_heads import Head, is_due, put_head
from auth.audit_verification import Findings, Trust, one_picture, verify_database
from auth.keys import PublicKey, SigningKey
from model_store.database import Sessions, clock_ms, connect, sessions_of, transaction
from model_store.settings import StoreSettings
from tests.databases import make_tables

SQLITE = "sqlite:///{}"


def new_key() -> SigningKey:
    """A key of a gateway, or of somebody else."""
    private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(private, PublicKey.of(private.public_key()))


def audit_database(database_url: str) -> Iterator[Sessions]:
    """A migrated database."""
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings)
    yield sessions_of(engine)
    engine.dispose()


def sqlite_url(folder: Path) -> str:
    return SQLITE.format(folder / "sluice.db")


def act(number: int) -> Entry:
    """Some act; all of its fields are set."""
    return Entry(
        "put_label",
        identity=f"cli_{number}",
        name=f"client {number}",
        model="mnist",
        version=number,
        digest="d" * 64,
        outcome=Outcome.REFUSED if number % 3 == 0 else Outcome.DONE,
        reason="version_in_use" if number % 3 == 0 else None,
        request_id=f"request-{number}",
        address="10.0.0.1",
        detail={"label": f"label-{number}"},
    )


def write(sessions: Sessions, entries: int, key: SigningKey | None = None) -> Head | None:
    """Records and seals so many entries; signs a head where a key is given."""
    with transaction(sessions) as session:
        for number in range(entries):
            record(session, act(number + 1))
    with transaction(sessions) as session:
        seal(session)
    with transaction(sessions) as session:
        return None if key is None else write_head(session, key, seconds=0, entries=1)


def verified(sessions: Sessions, trust: Trust | None = None) -> Findings:
    """What `sluice audit verify` finds in the database."""
    with transaction(sessions, write=False) as session:
        one_picture(session)
        return verified_in(session, trust)


def verified_in(session: Session, trust: Trust | None = None) -> Findings:
    """The same within a transaction, with what it has changed so far."""
    return verify_database(session, trust or Trust(), lambda _: None)


def write_head(session: Session, signing: SigningKey, *, seconds: float, entries: int) -> Head | None:
    """Signs the chain's end where that is due, remembering nothing of it; None where it is not."""
    chain = locked_chain(session)
    if chain is None or not is_due(session, signing, seconds=seconds, entries=entries):
        return None
    return put_head(session, chain, clock_ms(session), signing)
