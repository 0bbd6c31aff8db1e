"""Who asked for an upload that comes later: whether they may still upload the model when it is there to be published.

An import fetches for minutes; by then the client may be disabled, its grant withdrawn or its token revoked.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from auth.grants import Action
from auth.rights import load_rights
from auth.scopes import Scope
from model_store.database import clock_ms
from model_store.errors import SluiceError


class UploadWithdrawn(SluiceError):
    """Whoever asked for the upload may not upload this model any more; nothing was published."""

    status = 403
    code = "upload_withdrawn"


@dataclass(frozen=True, slots=True)
class UploadAuthority:
    """A client or person, and by what it asked: the scopes of its token, and what revokes that (`jti`, family).

    `tokens_not_before` is the client's own of that moment: another one means that its tokens and sessions were revoked.
    """

    client_id: str
    scopes: tuple[str, ...]
    revocable: tuple[str, ...]
    tokens_not_before: int

    def to_json(self) -> str:
        """What is kept beside the client's id."""
        kept = asdict(self)
        del kept["client_id"]
        return json.dumps(kept)

    @classmethod
    def from_json(cls, client_id: str, text: str) -> UploadAuthority:
        """The inverse of `to_json`."""
        row = json.loads(text)
        return cls(client_id, tuple(row["scopes"]), tuple(row["revocable"]), row["tokens_not_before"])


def require_still(session: Session, authority: UploadAuthority, model: str) -> None:
    """Raises UploadWithdrawn unless its token, if it had not expired, would let it upload the model at this moment."""
    picture = load_rights(session)
    client = picture.clients.get(authority.client_id)
    if client is None or client.disabled:
        raise UploadWithdrawn("whoever asked for it was deleted or disabled")
    revoked = not picture.revoked.isdisjoint(authority.revocable)
    if revoked or client.tokens_not_before != authority.tokens_not_before:
        raise UploadWithdrawn("the token with which it was asked for was revoked")
    if Scope.MODELS_WRITE not in client.scopes:
        raise UploadWithdrawn(f"whoever asked for it does not have the scope {Scope.MODELS_WRITE} any more")
    scopes = [scope for scope in client.scopes if str(scope) in authority.scopes]
    if client.narrowed(scopes).rule(Action.UPLOAD, model, None, (), clock_ms(session)) is None:
        raise UploadWithdrawn("the right to upload this model was withdrawn, or expired")
