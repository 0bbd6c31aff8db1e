"""Conversations with a gateway, apart from how they are carried: requests, pauses, and what follows from answers.

Whatever takes more than one request is a generator of steps, which `Link` runs with threads and `AsyncLink` with
asyncio: what they send and how they understand answers is the same code.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import httpx

from sluice.answers import Json, read_answer

T = TypeVar("T")
JSON_TYPE = {"Content-Type": "application/json"}

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and in all."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file's bytes from `first` up to `last`, of `size` in all; read piece by piece, again for each try."""

    file: Path
    first: int
    last: int
    size: int
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, but for its token. Sending it gives the answer, or raises Unreachable."""

    method: str
    path: str
    content: bytes | FilePart | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for an address elsewhere, which would be told the token."""
        if "://" in self.path.partition("?")[0]:
            raise ValueError(f"{self.path} is no path of the gateway, such as /v1/models")


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Renewal:
    """A new token, whatever is left of the old one: a long request must not outlive it."""


Step: TypeAlias = Asked | Pause | Renewal
# What comes back depends on the step: a response for a request, None for the others.
Steps: TypeAlias = Generator[Step, Any, T]


def ask(asked: Asked) -> Steps[httpx.Response]:
    """The answer to one request, whatever it says. Raises Unreachable."""
    response: httpx.Response = yield asked
    return response


def ask_json(asked: Asked) -> Steps[Json]:
    """The JSON that one request answers. Raises Refused, Unreachable."""
    return read_answer((yield asked))


def encode_json(document: object) -> bytes | None:
    """JSON with the values of arrays, and files' bytes in base64; None for None. Raises TypeError, OSError."""
    return None if document is None else json.dumps(document, default=_plain, separators=(",", ":")).encode()


def _plain(value: object) -> Json:
    """Arrays of numpy and of whatever else can say what it holds; files."""
    if isinstance(value, Path):
        value = value.read_bytes()
    if isinstance(value, bytes | bytearray):
        return {"b64": base64.b64encode(value).decode()}
    for name in ("tolist", "__array__"):
        if hasattr(value, name):
            found = getattr(value, name)()
            return found.tolist() if name == "__array__" else found
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")
