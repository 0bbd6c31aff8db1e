"""JSON bodies of administration, read strictly: a member that appears twice is refused, not decided by who reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

# All whole numbers up to it are floats, too (RFC 8259, section 6).
MOST_EXACT = 2**53


class StrictRequest(Request):
    """A request whose JSON has each member once (ASVS 5.0, 1.5.3: parsers that read the same text must agree).

    Its fields are of strict types: `false` is no 0 and `"83"` no number, but 83.0 is a whole one.
    """

    async def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Raises JSONDecodeError, which FastAPI answers as a body that is not JSON."""
        if not hasattr(self, "_json"):
            text = (await self.body()).decode()
            self._json = json.loads(text, object_pairs_hook=_each_once, parse_float=_number)
        return self._json


class StrictRoute(APIRoute):
    """A route whose body is read by StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise json.JSONDecodeError("a member appears twice", "", 0)
    return members


def _number(text: str) -> float:
    """83.0 is 83 (JSON Schema 2020-12, Core, section 4.2.3); where a fraction may be, an integer may be as well."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MOST_EXACT else value
