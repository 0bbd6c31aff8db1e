"""Signed heads: the gateway's signature (ES256's curve and hash) over where the chain begins and ends at one moment.

Who can write to the database can compute the chain anew, but not sign it; and because heads also go to the log and to
syslog, the end of the log cannot be cut off unseen either.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from auth.audit_chain import NOTHING, ROW, Link, LogChanged, canonical
from auth.audit_tables import AuditChain, AuditEntry, AuditHead
from auth.keys import SigningKey, thumbprint
from model_store.database import clock_ms

# Nothing else that this key signs begins so: a JWS begins with the base64url of `{`.
PURPOSE = b"sluice audit head 1\n"
# `bytes.fromhex` takes spaces and capitals as well: the same signature could be written in many ways.
HEXADECIMAL = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Head:
    """What was signed, and the signature; `at` is in milliseconds since 1970, hashes, key and signature hexadecimal."""

    number: int
    hash: str
    before_number: int
    before_hash: str
    at: int
    key: str
    signature: str

    @property
    def end(self) -> Link:
        """The last entry that the signature covers."""
        return Link(self.number, self.hash)

    @property
    def before(self) -> Link:
        """The place before the first entry that it covers."""
        return Link(self.before_number, self.before_hash)

    @property
    def kid(self) -> str:
        """The key's RFC 7638 thumbprint, as the key has it in `/.well-known/jwks.json`; empty for what is no key."""
        if not isinstance(self.key, str):
            return ""
        try:
            return thumbprint(_point(self.key))
        except ValueError:
            return ""

    def is_genuine(self) -> bool:
        """Whether the signature is that of this key over these values; whose key it is, is another question."""
        # A database may hold values of other kinds than its columns'.
        if head_of(asdict(self)) is None or not HEXADECIMAL.fullmatch(self.key + self.signature):
            return False
        try:
            _point(self.key).verify(bytes.fromhex(self.signature), self._signed(), ec.ECDSA(SHA256()))
        except (ValueError, InvalidSignature):
            return False
        return True

    def line(self) -> str:
        """The head as one line of JSON."""
        return canonical(asdict(self))

    def _signed(self) -> bytes:
        return (
            PURPOSE + canonical({name: value for name, value in asdict(self).items() if name != "signature"}).encode()
        )


class HeadInvalid(ValueError):
    """A text holds no head."""


def sign(end: Link, before: Link, at: int, signing: SigningKey) -> Head:
    """A new head."""
    key = _hexadecimal(signing)
    unsigned = Head(end.number, end.hash, before.number, before.hash, at, key, "")
    signature = signing.key.sign(unsigned._signed(), ec.ECDSA(SHA256()))
    return Head(**{**asdict(unsigned), "signature": signature.hex()})


def is_due(session: Session, signing: SigningKey, *, seconds: float, entries: int) -> bool:
    """Whether the chain's end is to be signed: `seconds` or `entries` after the head before, or because the key is
    another one than last time. Raises LogChanged for a head over an entry that is yet to come."""
    number = session.scalar(select(AuditChain.number).where(AuditChain.id == ROW))
    last = newest(session)
    if number is not None and last is not None and last.number > number:
        raise LogChanged(f"the log ends at entry {number}; a head is over entry {last.number}")
    if not number or last is None or last.key != _hexadecimal(signing) or not last.is_genuine():
        return bool(number)
    new = number - last.number
    return new > 0 and (new >= entries or clock_ms(session) - last.at >= seconds * 1000)


def put_head(session: Session, chain: AuditChain, now: int, signing: SigningKey) -> Head:
    """Signs the chain as it is now; the caller holds its row."""
    before = Link(chain.before_number, chain.before_hash)
    made = sign(Link(chain.number, chain.hash), before, now, signing)
    session.execute(delete(AuditHead).where(AuditHead.number == made.number))
    session.add(AuditHead(**asdict(made)))
    session.flush()
    return made


def sign_anew(session: Session, signing: SigningKey) -> Head:
    """Signs the log as it stands, up to its last entry, though it was changed; raises LogChanged for an empty one.

    Heads over what is gone are removed; those over what is there stay, and with them what was found.
    """
    first, last = (
        session.execute(select(AuditEntry.number, AuditEntry.hash).order_by(order).limit(1)).one_or_none()
        for order in (AuditEntry.number.asc().nulls_last(), AuditEntry.number.desc().nulls_last())
    )
    if first is None or last is None or first.number is None or last.number is None or last.hash is None:
        raise LogChanged("there are no entries to sign")
    chain = session.get(AuditChain, ROW)
    if chain is None:
        chain = AuditChain(id=ROW, before_number=first.number - 1, before_hash=NOTHING, number=0, hash=NOTHING)
        session.add(chain)
    chain.number, chain.hash = last.number, last.hash
    session.execute(delete(AuditHead).where(AuditHead.number >= last.number))
    return put_head(session, chain, clock_ms(session), signing)


def newest(session: Session) -> Head | None:
    """The head over the longest chain."""
    row = session.scalars(select(AuditHead).order_by(AuditHead.number.desc()).limit(1)).one_or_none()
    return None if row is None else of_row(row)


def of_row(row: AuditHead) -> Head:
    """A head as the database has it; one whose number is none is over entry -1."""
    values = {field.name: getattr(row, field.name) for field in fields(Head)}
    return Head(**values | {"number": row.number if isinstance(row.number, int) else -1})


def read_heads(text: str) -> tuple[Head, ...]:
    """The heads in a text, each once: a head's own line, a log with some, an exported file. Raises HeadInvalid."""
    found = dict.fromkeys(head for line in text.splitlines() if (head := _head_in(line)) is not None)
    if not found:
        raise HeadInvalid("there is no audit head in it")
    return tuple(found)


def head_of(values: object) -> Head | None:
    """The head that a parsed JSON object is, if it is one."""
    kinds = {field.name: int if field.type == "int" else str for field in fields(Head)}
    if not isinstance(values, dict) or any(type(values.get(name)) is not kind for name, kind in kinds.items()):
        return None
    return Head(**{name: values[name] for name in kinds})


def _head_in(line: str) -> Head | None:
    begin = line.find("{")
    while begin >= 0:
        try:
            values, _ = json.JSONDecoder().raw_decode(line, begin)
        except ValueError:
            values = None
        if isinstance(values, dict):
            # A log's line is an object itself, whose message holds the head.
            inner = values.get("message")
            return head_of(values) or (_head_in(inner) if isinstance(inner, str) else None)
        begin = line.find("{", begin + 1)
    return None


def _hexadecimal(signing: SigningKey) -> str:
    return signing.public.key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex()


def _point(key: str) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(key))
