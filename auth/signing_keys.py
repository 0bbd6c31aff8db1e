"""Signing keys in SQL: made, rotated and withdrawn there, their private parts sealed under the master key.

A new key is published before it signs, and an old one verifies until its last token is dead, so that nobody is refused
over a rotation, whichever gateway is asked. Private parts are erased when their time is over; public parts stay, since
signatures outlive keys.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from auth import bundle_keys
from auth.errors import KeyNeeded, KeyNotFound, KeysInvalid, MasterKeyWrong
from auth.key_files import read_key_files
from auth.key_tables import StoredKey
from auth.keys import HeldKey, KeyRing, PublicKey
from model_store.database import clock_ms
from model_store.errors import SealBroken
from model_store.generation import bump_generation
from model_store.sealing import SealingKeys

log = logging.getLogger(__name__)

History = dict[str, list[dict[str, object]]]

SECOND_MS = 1000
DAY_MS = 86_400 * SECOND_MS
# The longest life that the setting allows a token, and as much again as clocks may differ by.
TOKEN_MS = (3600 + 120) * SECOND_MS
# Every gateway reads a new key well within this.
HURRY_MS = 1500


class KeyState(StrEnum):
    """Where a key is in its life."""

    PUBLISHED = "published"  # verifies, and is yet to sign
    SIGNING = "signing"
    RETIRING = "retiring"  # verifies until the last token that it signed is dead; a newer one signs, or soon will
    ENDED = "ended"


class SigningKeys:
    """The ring of this moment, read again by `read` whenever something changed."""

    def __init__(self, master_keys: SealingKeys) -> None:
        self._master_keys = master_keys
        self.ring = KeyRing(())
        self.history: History = {"keys": []}
        """Every key there ever was, as a JWK Set for what outlives keys."""
        self.bundles = bundle_keys.BundleKeys(master_keys)

    def read(self, session: Session) -> None:
        """Replaces the ring by what the database has. A row that the master key did not vouch for is no key."""
        living = {row.kid for row in _living(session)}
        rows = [row for row in all_keys(session) if _is_ours(row, self._master_keys)]
        held = [_held(row, self._master_keys) for row in rows if row.kid in living]
        # By the database's clock, which wrote the times, moved on by this process's own that never goes back.
        begin = clock_ms(session) / SECOND_MS - time.monotonic()
        ended = [row.kid for row in rows if row.kid not in living]
        self.ring = KeyRing(held, ended, clock=lambda: time.monotonic() + begin)
        self.history = {"keys": [_historical(row) for row in rows]}
        self.bundles.read(session)


def ensure(session: Session, master_keys: SealingKeys, folder: Path) -> None:
    """Makes the first key, or takes over those of an earlier release from `folder`. Raises KeysInvalid.

    Of several gateways that start at once on one database, all find the key of one of them.
    """
    if not _living(session):
        bump_generation(session)  # its row is locked until the commit: one gateway at a time comes past here
        if not _living(session):
            _begin(session, master_keys, folder)
    _require_openable(_living(session), master_keys)
    bundle_keys.ensure(session, master_keys)


def rotate(
    session: Session,
    master_keys: SealingKeys,
    *,
    publish_seconds: int,
    compromised: bool = False,
    master_key_lost: bool = False,
) -> StoredKey:
    """Adds the next key. It signs after `publish_seconds`; then the others verify for as long as a token can live.

    `compromised` withdraws all other keys at once: their tokens are refused everywhere within a second, and the new
    key signs as soon as every gateway knows it. Raises MasterKeyWrong where this master key vouches for none of the
    keys so far: no running gateway would know the new one. `master_key_lost` says that none runs with theirs any more.
    """
    bump_generation(session)
    compromised = compromised or master_key_lost
    if not master_key_lost:
        _require_vouched(_living(session), master_keys)
    now = clock_ms(session)
    begins = now + (HURRY_MS if compromised else publish_seconds * SECOND_MS)
    ends = now if compromised else begins + TOKEN_MS
    living = update(StoredKey).where(StoredKey.verifies_until.is_(None) | (StoredKey.verifies_until > ends))
    session.execute(living.values(verifies_until=ends))
    if compromised:
        # Also those that were retiring: whoever has the keys can date what they sign back.
        known = or_(StoredKey.sealed.is_not(None), StoredKey.verifies_until >= now)
        revoked = update(StoredKey).where(StoredKey.revoked_at.is_(None), known)
        session.execute(revoked.values(sealed=None, revoked_at=now))
    # Whoever has one of the private keys has the others: they lie side by side, under the same master key.
    bundle_keys.rotate(session, master_keys, compromised=compromised)
    return _add(session, ec.generate_private_key(ec.SECP256R1()), master_keys, now, begins)


def keep(session: Session, master_keys: SealingKeys, *, most_days: int, publish_seconds: int) -> None:
    """What time demands, to be called now and then: the next key when the newest is `most_days` old (0: never), and
    the end of private parts that nothing needs any more. Raises MasterKeyWrong, as `rotate`."""
    now = clock_ms(session)
    newest = max((row.created_at for row in _living(session)), default=now)
    if most_days and newest < now - most_days * DAY_MS:
        log.info("the signing key is %d days old: the next one is published", most_days)
        rotate(session, master_keys, publish_seconds=publish_seconds)
    session.execute(
        update(StoredKey).where(StoredKey.verifies_until < now, StoredKey.sealed.is_not(None)).values(sealed=None)
    )


def withdraw(session: Session, kid: str) -> StoredKey:
    """Ends one key at once; its tokens are refused within a second. Raises KeyNotFound, and KeyNeeded for the only
    key that signs: rotate it instead."""
    bump_generation(session)
    now = clock_ms(session)
    living = _living(session)
    found = next((row for row in living if row.kid == kid), None)
    if found is None:
        raise KeyNotFound("there is no such key that verifies tokens")
    remaining = [row for row in living if row is not found]
    signing = next((row for row in remaining if row.signs_from <= now), None)
    if signing is None:
        raise KeyNeeded("it is the only key that signs: rotate it as compromised instead")
    if all(row.verifies_until is not None for row in remaining):
        # It was retiring because of the key that goes: with its end nothing would sign any more.
        signing.verifies_until = None
    found.verifies_until, found.sealed, found.revoked_at = now, None, now
    session.flush()
    return found


def reseal(session: Session, master_keys: SealingKeys) -> int:
    """Seals under the newest master key what older ones sealed; returns of how many keys. Raises SealBroken."""
    rows = [row for row in all_keys(session) if not master_keys.is_current(row.voucher)]
    for row in rows:
        row.voucher = master_keys.seal(master_keys.open(row.voucher, _vouching(row.kid)), _vouching(row.kid))
        if row.sealed is not None:
            row.sealed = master_keys.seal(master_keys.open(row.sealed, _context(row.kid)), _context(row.kid))
    session.flush()
    bundle_keys.reseal(session, master_keys)
    return len(rows)


def all_keys(session: Session) -> Sequence[StoredKey]:
    """Every key there ever was, the newest first."""
    return session.scalars(select(StoredKey).order_by(StoredKey.created_at.desc(), StoredKey.signs_from.desc())).all()


def state_of(row: StoredKey, now: int) -> KeyState:
    """Where a key is at a moment, in milliseconds since 1970."""
    if row.verifies_until is not None:
        return KeyState.RETIRING if row.verifies_until > now else KeyState.ENDED
    return KeyState.SIGNING if row.signs_from <= now else KeyState.PUBLISHED


def is_vouched(row: StoredKey, master_keys: SealingKeys) -> bool:
    """Whether this master key made the key; a gateway that has it takes no other."""
    try:
        return master_keys.open(row.voucher, _vouching(row.kid)) == b""
    except SealBroken:
        return False


def public_key(row: StoredKey) -> PublicKey:
    """What verifies what the key signed. Raises KeysInvalid where the row was tampered with."""
    key = load_der_public_key(row.public)
    if not isinstance(key, ec.EllipticCurvePublicKey) or PublicKey.of(key).kid != row.kid:
        raise KeysInvalid(f"the key {row.kid} is not what its name says")
    return PublicKey.of(key)


def _historical(row: StoredKey) -> dict[str, object]:
    """The key as OpenID Federation 1.0 (section 8.7) tells of historical keys; times are seconds since 1970."""
    jwk: dict[str, object] = {**public_key(row).jwk(), "iat": row.signs_from // SECOND_MS}
    if row.verifies_until is not None:
        jwk["exp"] = row.verifies_until // SECOND_MS
    if row.revoked_at is not None:
        jwk["revoked"] = {"revoked_at": row.revoked_at // SECOND_MS}
    return jwk


def _living(session: Session) -> Sequence[StoredKey]:
    verifies = StoredKey.verifies_until.is_(None) | (StoredKey.verifies_until > clock_ms(session))
    return session.scalars(select(StoredKey).where(verifies).order_by(StoredKey.signs_from.desc())).all()


def _begin(session: Session, master_keys: SealingKeys, folder: Path) -> None:
    now = clock_ms(session)
    for index, key in enumerate(read_key_files(folder) or [ec.generate_private_key(ec.SECP256R1())]):
        row = _add(session, key, master_keys, now, now - index)
        if index:
            row.verifies_until = now + TOKEN_MS
    if (folder / "signing.pem").exists():
        log.warning("signing keys were taken over from %s, sealed; remove the files there", folder)
    session.flush()


def _add(
    session: Session, key: ec.EllipticCurvePrivateKey, master_keys: SealingKeys, now: int, signs_from: int
) -> StoredKey:
    public = PublicKey.of(key.public_key())
    row = StoredKey(
        kid=public.kid,
        voucher=master_keys.seal(b"", _vouching(public.kid)),
        public=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        sealed=master_keys.seal(
            key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), _context(public.kid)
        ),
        created_at=now,
        signs_from=signs_from,
    )
    session.add(row)
    session.flush()
    return row


def _held(row: StoredKey, master_keys: SealingKeys) -> HeldKey:
    return HeldKey(public_key(row), _opened(row, master_keys), row.signs_from, row.verifies_until)


def _is_ours(row: StoredKey, master_keys: SealingKeys) -> bool:
    ours = is_vouched(row, master_keys)
    if not ours:
        log.error("the signing key %s was put into the database without this gateway's master key", row.kid)
    return ours


def _require_vouched(rows: Sequence[StoredKey], master_keys: SealingKeys) -> None:
    if rows and not any(is_vouched(row, master_keys) for row in rows):
        raise MasterKeyWrong(
            "SLUICE_MASTER_KEY is not the one of the signing keys so far, and gateways that have theirs would refuse "
            "a key made under it: give that one. If it is lost, `sluice keys rotate --master-key-lost` ends those "
            "keys and every token that they signed"
        )


def _opened(row: StoredKey, master_keys: SealingKeys) -> ec.EllipticCurvePrivateKey | None:
    if row.sealed is None:
        return None
    try:
        key = load_der_private_key(master_keys.open(row.sealed, _context(row.kid)), password=None)
    except SealBroken:
        # The next oldest key signs meanwhile; this one still verifies, for which its voucher is enough.
        log.error("the signing key %s is sealed under a master key that this gateway does not have", row.kid)  # noqa: TRY400 - the trace says nothing more
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeysInvalid(f"the key {row.kid} is none that signs")
    return key


def _require_openable(rows: Sequence[StoredKey], master_keys: SealingKeys) -> None:
    if not any(_opened(row, master_keys) is not None for row in rows):
        raise KeysInvalid(
            "no signing key can be opened with SLUICE_MASTER_KEY: give the one under which they were sealed, "
            "or, if that is lost, end them with `sluice keys rotate --master-key-lost`"
        )


def _context(kid: str) -> bytes:
    return b"signing key|" + kid.encode()


def _vouching(kid: str) -> bytes:
    return b"public key|" + kid.encode()
