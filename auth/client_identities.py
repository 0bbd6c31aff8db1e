"""Which client a token of another issuer stands for: its issuer and the value of its client claim name one of ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from auth import clients
from auth.errors import IdentityTaken
from auth.token_tables import ClientIdentity
from model_store.generation import bump_generation

MOST_IDENTITIES = 100


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A name that another issuer has for a client."""

    issuer: str
    subject: str


def set_identities(session: Session, client_id: str, identities: Collection[Identity]) -> None:
    """Replaces all identities of a client. Raises ClientNotFound, and IdentityTaken where one is another client's."""
    client = clients.get(session, client_id)
    # First: it makes those that change identities at the same time wait for each other.
    bump_generation(session)
    session.execute(delete(ClientIdentity).where(ClientIdentity.client_id == client.id))
    for identity in sorted(set(identities)):
        if session.get(ClientIdentity, (identity.issuer, identity.subject)) is not None:
            raise IdentityTaken(f"{identity.subject} of {identity.issuer} is another client already")
        session.add(ClientIdentity(issuer=identity.issuer, subject=identity.subject, client_id=client.id))
    session.flush()


def identities_of(session: Session, client_id: str) -> Sequence[Identity]:
    """The client's identities in their order; raises ClientNotFound."""
    client = clients.get(session, client_id)
    rows = session.scalars(select(ClientIdentity).where(ClientIdentity.client_id == client.id))
    return sorted(Identity(row.issuer, row.subject) for row in rows)


def load_identities(session: Session) -> Mapping[tuple[str, str], str]:
    """Every identity (issuer and subject), and the client that it is."""
    return {(row.issuer, row.subject): row.client_id for row in session.scalars(select(ClientIdentity))}
