"""Spreads: the versions that calls of a bare name are split over, as far as one client may use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_store.traffic import HEADER, chosen

if TYPE_CHECKING:
    from gateway.access import Found


@dataclass(frozen=True, slots=True)
class Spread:
    """A split without the versions that the client has no grant for: their shares go to the others.

    `sticky` names a header; without one, chance decides.
    """

    model: str
    shares: tuple[tuple[int, float], ...]
    found: Mapping[int, Found]
    sticky: str | None

    def choose(self, client_id: str, headers: Sequence[tuple[bytes, bytes]]) -> Found:
        """What this request gets; `headers` are raw ASGI's.

        Without the header that decides, or with several of them, the client does.
        """
        if self.sticky is None:
            return self.found[chosen(self.shares, self.model, None)]
        name = self.sticky.removeprefix(HEADER).lower().encode()
        values = [value for sent, value in headers if sent == name]
        subject = b"header\0" + values[0] if len(values) == 1 else of_client(client_id)
        return self.found[chosen(self.shares, self.model, subject)]


def of_client(client_id: str) -> bytes:
    """By what a client is hashed."""
    return b"client\0" + client_id.encode()
