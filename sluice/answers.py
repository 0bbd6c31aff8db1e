"""What a gateway's answers come to in the Python client: JSON, or an error that says why."""

from __future__ import annotations

from typing import Any, TypeAlias

import httpx

# JSON as Python's own parser gives it: what it holds is up to whoever asked.
Json: TypeAlias = Any


class SluiceFailed(Exception):
    """A call that did not succeed; the message says why, for a person."""


class Unreachable(SluiceFailed):
    """No answer came."""


class CredentialsInvalid(SluiceFailed):
    """The file of credentials cannot be used."""


class Refused(SluiceFailed):
    """The gateway answered with an error: `status` is HTTP's, `code` Sluice's own where it gave one, `answer` the whole
    of it as far as it is JSON."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        answer: dict[str, Json] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.answer = answer or {}


def read_answer(response: httpx.Response) -> Json:
    """The JSON of an answer, None where it is empty; raises Refused, and Unreachable where it is no JSON."""
    if not response.is_success:
        raise refusal(response)
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise Unreachable(f"{response.url.copy_with(query=None)} did not answer with JSON") from error


def refusal(response: httpx.Response) -> Refused:
    """The error in whichever of the interface's shapes it comes (problem+json, `{"error"}`, RFC 6749)."""
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    found = answer if isinstance(answer, dict) else {}
    code = found.get("code") or (found.get("error") if "error_description" in found else None)
    message = found.get("detail") or found.get("error_description") or found.get("error") or found.get("title")
    retry_after = response.headers.get("Retry-After", "")
    return Refused(
        response.status_code,
        code,
        f"{message or response.reason_phrase or 'refused'} (HTTP {response.status_code})",
        retry_after_seconds=int(retry_after) if retry_after.isdecimal() else None,
        answer=found,
    )
