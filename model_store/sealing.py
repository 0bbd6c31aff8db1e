"""Sealing: encryption of small secrets that lie in SQL or in a store, under keys that lie elsewhere.

AES-256-GCM (NIST SP 800-38D), each seal under a key of its own that HMAC-SHA-256 derives from the ring's key and a
random salt: GCM's random nonces alone are good for 2^32 seals, which busy gateways reach with jobs' bodies in days.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from model_store.errors import SealBroken, SealingKeysInvalid

KEY_BYTES = 32
ID_BYTES = 8
SALT_BYTES = 16
NONCE_BYTES = 12
FORMAT = b"\x01"
_SALT_AT = len(FORMAT) + ID_BYTES
_NONCE_AT = _SALT_AT + SALT_BYTES
_TEXT_AT = _NONCE_AT + NONCE_BYTES
OVERHEAD_BYTES = _TEXT_AT + 16  # GCM's tag


class SealingKeys:
    """A ring of 256-bit keys: the first one seals, all of them open.

    So a key is changed without a gap: put the new one in front everywhere, seal again what exists, then take the old
    one out.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Raises SealingKeysInvalid unless there is a key and each has 32 bytes."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise SealingKeysInvalid(f"a sealing key has {KEY_BYTES} bytes, and there is at least one")
        self._keys = {_id(key): key for key in keys}
        self._current = _id(keys[0])

    @classmethod
    def parse(cls, text: str) -> SealingKeys:
        """Keys in base64url (43 characters each), separated by white space, the newest first; SealingKeysInvalid."""
        try:
            return cls([base64.b64decode(word + "=" * (-len(word) % 4), b"-_", validate=True) for word in text.split()])
        except ValueError:
            # Neither chained nor quoted: the text is the secret.
            raise SealingKeysInvalid(
                "a sealing key is 32 random bytes in base64url: `sluice keys new-master`"
            ) from None

    @property
    def current_id(self) -> str:
        """What tells the sealing key apart, in hexadecimal; says nothing about the key itself."""
        return self._current.hex()

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """The sealed bytes, 53 longer. `context` says what this is and whose; it must be the same when it is opened."""
        random = os.urandom(SALT_BYTES + NONCE_BYTES)
        salt, nonce = random[:SALT_BYTES], random[SALT_BYTES:]
        sealed = _cipher(self._keys[self._current], salt).encrypt(nonce, plain, context)
        return b"".join((FORMAT, self._current, random, sealed))

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed; raises SealBroken."""
        key = self._keys.get(sealed[len(FORMAT) : _SALT_AT])
        if sealed[: len(FORMAT)] != FORMAT or key is None:
            raise SealBroken("something was sealed under a key that this process does not have")
        cipher = _cipher(key, sealed[_SALT_AT:_NONCE_AT])
        try:
            return cipher.decrypt(sealed[_NONCE_AT:_TEXT_AT], sealed[_TEXT_AT:], context)
        except (InvalidTag, ValueError):
            raise SealBroken("something sealed was changed, or belongs to something else") from None

    def derived(self, purpose: bytes) -> tuple[bytes, ...]:
        """A key for another purpose of each key of the ring, the newest first (HKDF with SHA-256, RFC 5869)."""
        # What the ring's keys themselves are used for is HMAC of other texts; nothing of these can be computed back.
        return tuple(HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(key) for key in self._keys.values())

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key of the ring sealed this."""
        return sealed[len(FORMAT) : _SALT_AT] == self._current


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, b"sluice seal" + salt, "sha256"))


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"sluice sealing key id" + key).digest()[:ID_BYTES]
