"""The second factor: codes by time (RFC 6238) from a secret that is kept sealed, and recovery codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from passlib.exc import TokenError
from passlib.totp import TOTP
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from auth.people_errors import CodeInvalid, SecondFactorNotOffered
from auth.people_tables import Person, RecoveryCode
from model_store.sealing import SealingKeys

RECOVERY_CODES = 10
RECOVERY_BYTES = 10
ISSUER = "Sluice"


@dataclass(frozen=True, slots=True)
class Offer:
    """A secret for the person's device: as text to type, and as the address that a QR code holds."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a right code uses up: a time step, or a recovery code; neither where there is no second factor."""

    step: int | None = None
    recovery_hash: str | None = None


class SecondFactor:
    """Offers, confirms and checks second factors. Codes of the step before and after are taken, each step once."""

    def __init__(self, keys: SealingKeys, pepper: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._pepper = hmac.new(pepper, b"recovery codes", hashlib.sha256).digest()
        self._clock = clock
        # Somebody without a second factor, and nobody, cost the same work as somebody who has one.
        self._decoy = TOTP(new=True)

    def offer(self, person: Person) -> Offer:
        """A new secret, which counts once a code of it has come back."""
        made = TOTP(new=True)
        person.second_factor_offered = self._keys.seal(made.key, _context(person.id))
        return Offer(made.base32_key, made.to_uri(label=person.name, issuer=ISSUER))

    def confirm(self, session: Session, person: Person, code: str) -> Sequence[str]:
        """Puts the offered secret in force; ten recovery codes, which are known only here and now.

        Raises SecondFactorNotOffered, CodeInvalid.
        """
        if person.second_factor_offered is None:
            raise SecondFactorNotOffered("ask for a secret first")
        step = self._matched(self._opened(person.id, person.second_factor_offered), code, 0)
        if step is None:
            raise CodeInvalid
        person.second_factor, person.second_factor_offered = person.second_factor_offered, None
        person.last_step = step
        return self._new_recovery_codes(session, person)

    def prove(
        self, person_id: str, sealed: bytes | None, last_step: int, recovery: Collection[str], code: str | None
    ) -> Proof | None:
        """What the code would use up, or None where it is wrong, used, missing, or a code without a second factor."""
        totp = self._decoy if sealed is None else self._opened(person_id, sealed)
        step = self._matched(totp, code or "", last_step)
        typed = self._recovery_hash(person_id, code or "")
        recovered = [known for known in recovery if hmac.compare_digest(known, typed)]
        if sealed is None:
            # An empty field of a form is no code; any other one is somebody's mistake, and no reason to refuse.
            return Proof()
        if step is not None:
            return Proof(step=step)
        return Proof(recovery_hash=typed) if recovered else None

    def _matched(self, totp: TOTP, code: str, last_step: int) -> int | None:
        try:
            return int(totp.match(code[:32], time=int(self._clock()), last_counter=last_step).counter)
        except TokenError:
            return None

    def _opened(self, person_id: str, sealed: bytes) -> TOTP:
        return TOTP(key=self._keys.open(sealed, _context(person_id)), format="raw")

    def _new_recovery_codes(self, session: Session, person: Person) -> Sequence[str]:
        codes = [_recovery_code() for _ in range(RECOVERY_CODES)]
        session.execute(delete(RecoveryCode).where(RecoveryCode.person_id == person.id))
        session.add_all(
            RecoveryCode(person_id=person.id, code_hash=self._recovery_hash(person.id, code)) for code in codes
        )
        session.flush()
        return codes

    def _recovery_hash(self, person_id: str, code: str) -> str:
        typed = "".join(code.split()).replace("-", "").lower().encode("utf-8", "surrogatepass")
        return hmac.new(self._pepper, person_id.encode() + b"|" + typed, hashlib.sha256).hexdigest()


def use_up(session: Session, person: Person, proof: Proof) -> bool:
    """Takes the time step or the recovery code; false where somebody else was faster."""
    if proof.step is not None:
        moved = update(Person).where(Person.id == person.id, Person.last_step < proof.step).values(last_step=proof.step)
        return bool(session.execute(moved).rowcount == 1)  # type: ignore[attr-defined] # of UPDATE
    if proof.recovery_hash is not None:
        used = delete(RecoveryCode).where(
            RecoveryCode.person_id == person.id, RecoveryCode.code_hash == proof.recovery_hash
        )
        return bool(session.execute(used).rowcount == 1)  # type: ignore[attr-defined] # of DELETE
    return True


def reseal(session: Session, keys: SealingKeys) -> int:
    """Seals every secret again that an older key of the ring sealed; how many there were. Raises SealBroken."""
    count = 0
    for person in session.scalars(select(Person).with_for_update()):
        for name in ("second_factor", "second_factor_offered"):
            sealed: bytes | None = getattr(person, name)
            if sealed is not None and not keys.is_current(sealed):
                setattr(person, name, keys.seal(keys.open(sealed, _context(person.id)), _context(person.id)))
                count += 1
    session.flush()
    return count


def _recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _context(person_id: str) -> bytes:
    return b"totp|" + person_id.encode()
