"""Page tokens of lists in the order of a number: encrypted, since the number tells how much the installation does.

AES-SIV (RFC 5297) under a key derived from the master keys: the same number has the same token at every gateway, and
nobody but a gateway makes one.
"""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from model_store.errors import SluiceError
from model_store.sealing import SealingKeys

PURPOSE = b"sluice page tokens 1"
JOBS = b"jobs"
DELIVERIES = b"deliveries"
# What SQL's BIGINT holds; a driver refuses larger ones with an error of its own.
HIGHEST_NUMBER = 2**63 - 1
NUMBER_BYTES = 8
TOKEN_CHARACTERS = 32
TOKEN_EXAMPLE = "x1kHcN0v8Qm3ZtR5sYbU2aLwEoPjIfDg"  # noqa: S105 - of no number


class PageTokenInvalid(SluiceError):
    status = 400
    code = "page_token_invalid"

    def __init__(self) -> None:
        super().__init__("page_token is not one that this server gave")


class PageTokens:
    """Makes tokens of numbers and reads them; those that were made under an earlier master key are read too."""

    def __init__(self, master_keys: SealingKeys) -> None:
        self._ciphers = [AESSIV(key) for key in master_keys.derived(PURPOSE)]

    def make(self, number: int, listed: bytes = JOBS) -> str:
        """The token of a page that begins below this number, 32 characters of base64url.

        `listed` is what the numbers are of: a token of one kind of list is none of another, nor equal to one.
        """
        sealed = self._ciphers[0].encrypt(number.to_bytes(NUMBER_BYTES), [listed])
        return base64.urlsafe_b64encode(sealed).decode()

    def below(self, token: str | None, listed: bytes = JOBS) -> int:
        """The number below which a page begins: above all where there is no token. Raises PageTokenInvalid (400)."""
        if token is None:
            return HIGHEST_NUMBER
        try:
            sealed = base64.b64decode(token.encode(), b"-_", validate=True)
        except ValueError:
            raise PageTokenInvalid from None
        for cipher in self._ciphers if len(token) == TOKEN_CHARACTERS else ():
            try:
                return int.from_bytes(cipher.decrypt(sealed, [listed]))
            except InvalidTag:
                continue
        raise PageTokenInvalid
