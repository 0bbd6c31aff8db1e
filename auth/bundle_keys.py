"""Ed25519 keys that sign bundles, in SQL: made, rotated and revoked together with the keys of tokens.

They are apart because devices verify bundles: Ed25519 is what their update tools know, and a key that signs nothing
else cannot be made to sign a token. Public parts stay for ever, since bundles have no expiry.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from auth import bundle_signatures
from auth.errors import KeysUnavailable
from auth.key_tables import BundleKey
from model_store.database import clock_ms
from model_store.errors import SealBroken
from model_store.generation import bump_generation
from model_store.sealing import SealingKeys
from model_store.upload_signatures import key_id

log = logging.getLogger(__name__)

WAIT_SECONDS = 2
SECOND_MS = 1000

Published = dict[str, list[dict[str, object]]]


class BundleKeys:
    """The keys of this moment, read again by `read` whenever something changed."""

    def __init__(self, master_keys: SealingKeys) -> None:
        self._master_keys = master_keys
        self._signing: tuple[str, Ed25519PrivateKey] | None = None
        self.published: Published = {"keys": []}
        """Every key there ever was, as a JWK Set (RFC 8037): `iat` and `exp` bound when it signed."""

    def read(self, session: Session) -> None:
        """Replaces the keys by what the database has. A row that the master key did not vouch for is no key."""
        rows = [row for row in _all_keys(session) if is_vouched(row, self._master_keys)]
        self.published = {"keys": [_jwk(row) for row in rows]}
        opened = ((row.kid, _opened(row, self._master_keys)) for row in rows if row.ended_at is None)
        self._signing = next(((kid, key) for kid, key in opened if key is not None), None)

    def sign(self, claims: Mapping[str, object]) -> str:
        """The claims in compact form; raises KeysUnavailable where no key signs at this moment."""
        if self._signing is None:
            raise KeysUnavailable("there is no key for bundles at this moment", retry_after_seconds=WAIT_SECONDS)
        return bundle_signatures.sign(claims, *self._signing)


def ensure(session: Session, master_keys: SealingKeys) -> None:
    """Makes a key where there is none that this master key can open; of several gateways at once, one does."""
    if not _signs(session, master_keys):
        bump_generation(session)  # its row is locked until the commit: one gateway at a time comes past here
        if not _signs(session, master_keys):
            _add(session, master_keys)


def rotate(session: Session, master_keys: SealingKeys, *, compromised: bool) -> None:
    """Has a new key sign from now on; `compromised` revokes all others, so that nothing they signed proves anything."""
    now = clock_ms(session)
    session.execute(update(BundleKey).where(BundleKey.ended_at.is_(None)).values(ended_at=now, sealed=None))
    if compromised:
        session.execute(update(BundleKey).where(BundleKey.revoked_at.is_(None)).values(revoked_at=now))
    _add(session, master_keys)


def reseal(session: Session, master_keys: SealingKeys) -> None:
    """Seals under the newest master key what older ones sealed. Raises SealBroken."""
    rows = [row for row in _all_keys(session) if not master_keys.is_current(row.voucher)]
    for row in rows:
        row.voucher = master_keys.seal(master_keys.open(row.voucher, _vouching(row.kid)), _vouching(row.kid))
        if row.sealed is not None:
            row.sealed = master_keys.seal(master_keys.open(row.sealed, _context(row.kid)), _context(row.kid))
    session.flush()


def is_vouched(row: BundleKey, master_keys: SealingKeys) -> bool:
    """Whether this master key made the key, and the row still holds the key of its name."""
    try:
        return master_keys.open(row.voucher, _vouching(row.kid)) == b"" and key_id(row.public) == row.kid
    except SealBroken:
        log.error("the bundle key %s was put into the database without this gateway's master key", row.kid)  # noqa: TRY400 - the trace says nothing more
        return False


def _all_keys(session: Session) -> Sequence[BundleKey]:
    return session.scalars(select(BundleKey).order_by(BundleKey.created_at.desc(), BundleKey.kid)).all()


def _signs(session: Session, master_keys: SealingKeys) -> bool:
    return any(row.ended_at is None and _opened(row, master_keys) is not None for row in _all_keys(session))


def _add(session: Session, master_keys: SealingKeys) -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    kid = key_id(public)
    session.add(
        BundleKey(
            kid=kid,
            public=public,
            voucher=master_keys.seal(b"", _vouching(kid)),
            sealed=master_keys.seal(key.private_bytes_raw(), _context(kid)),
            created_at=clock_ms(session),
        )
    )
    session.flush()


def _opened(row: BundleKey, master_keys: SealingKeys) -> Ed25519PrivateKey | None:
    if row.sealed is None:
        return None
    try:
        return Ed25519PrivateKey.from_private_bytes(master_keys.open(row.sealed, _context(row.kid)))
    except SealBroken:
        return None


def _jwk(row: BundleKey) -> dict[str, object]:
    """The key as RFC 8037 writes it, with the times of OpenID Federation 1.0 (section 8.7), in seconds since 1970."""
    x = base64.urlsafe_b64encode(row.public).rstrip(b"=").decode()
    jwk: dict[str, object] = {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": row.kid, "use": "sig", "alg": "EdDSA"}
    jwk["iat"] = row.created_at // SECOND_MS
    if row.ended_at is not None:
        jwk["exp"] = row.ended_at // SECOND_MS
    if row.revoked_at is not None:
        jwk["revoked"] = {"revoked_at": row.revoked_at // SECOND_MS}
    return jwk


def _context(kid: str) -> bytes:
    return b"bundle key|" + kid.encode()


def _vouching(kid: str) -> bytes:
    return b"public bundle key|" + kid.encode()
