"""What a gateway's answers come to in the Python client: JSON, or an error that says why."""

from __future__ import annotations

import copyreg
import json
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    # Commands name these errors before they know whether they need an HTTP client, which takes long to import.
    import httpx

# JSON as Python's own parser gives it: what it holds is up to whoever asked.
Json: TypeAlias = Any


class SluiceFailed(Exception):
    """A call that did not succeed; the message says why, for a person, and never holds a secret or a token."""

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is: what a pool of processes cannot unpickle leaves it waiting for ever.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined] # of pickle's own


class Unreachable(SluiceFailed):
    """No answer came, or not one of a gateway; `broken` says that a connection was there, and broke, `late` that the
    request arrived, and its answer took too long."""

    passes = True

    def __init__(self, message: str, *, broken: bool = False, late: bool = False) -> None:
        super().__init__(message)
        self.broken = broken
        self.late = late


class NoGateway(Unreachable):
    """There is none at this address, and none will come: another server answers, or one that is not to be trusted."""

    passes = False


class BodyBroken(Unreachable):
    """A large body was broken off each time: it may be larger than the gateway takes, whose refusal was lost."""

    passes = False


class AnswerLate(Unreachable):
    """The gateway has the prediction, and its answer took longer than the client waits: sent again, it would only be
    computed again."""

    passes = False


class CredentialsInvalid(SluiceFailed):
    """The credentials cannot be used, or there are none."""


class FileUnknown(SluiceFailed):
    """A file that is neither an image, nor a recording, nor a text that a gateway takes."""


class Refused(SluiceFailed):
    """The gateway answered with an error: `status` is HTTP's, `code` Sluice's own where it gave one, `answer` the whole
    of it as far as it is JSON, `request_id` what to look for in the gateway's log."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        answer: dict[str, Json] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.answer = answer or {}
        self.request_id = request_id


class Unauthorized(Refused):
    """401: the id or the secret is wrong, or the client is disabled."""


class Forbidden(Refused):
    """403: the client lacks the scope that the text names."""


class NotFound(Refused):
    """404: it does not exist, or not for this client."""


class ModelNotFound(NotFound):
    """There is no such model, version or label, or no grant for it."""


class InputInvalid(Refused):
    """400, 413, 415, 422: what was sent does not fit; the text says where, and what was expected there."""


class RateLimited(Refused):
    """429: the client is at one of its limits, for longer than it was to be waited for."""


class Unavailable(Refused):
    """502, 503: something is away or busy, for longer than it was to be waited for."""


class DeadlinePassed(Refused):
    """504: the prediction took longer than a synchronous one may; `submit` has no such limit."""


class PredictionFailed(Refused):
    """500: the model itself failed on this input, or the gateway did."""


class JobFailed(SluiceFailed):
    """A job ended without a result; `document` is the job's, `code` and `request` of its error are in there."""

    def __init__(self, document: Json) -> None:
        error = document.get("error") or {}
        self.document = document
        self.code: str | None = error.get("code")
        super().__init__(f"job {document['id']} {document['state']}: {error.get('message') or 'no reason was given'}")


class JobCanceled(JobFailed):
    """The job was canceled."""


class JobExpired(JobFailed):
    """The job had not begun by its deadline."""


class JobNotEnded(SluiceFailed):
    """The job has not ended in the time that was to be waited for it; it goes on."""


MODEL_CODES = {"model_not_found", "label_not_found"}
_BY_STATUS: dict[int, type[Refused]] = {
    400: InputInvalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    413: InputInvalid,
    415: InputInvalid,
    422: InputInvalid,
    429: RateLimited,
    500: PredictionFailed,
    502: Unavailable,
    503: Unavailable,
    504: DeadlinePassed,
}
_BY_STATE = {"canceled": JobCanceled, "expired": JobExpired}


def read_answer(response: httpx.Response) -> Json:
    """The JSON of an answer, None where it is empty; raises Refused, and NoGateway where it is no JSON."""
    if not response.is_success:
        raise refusal(response)
    try:
        return json.loads(response.content) if response.content else None
    except ValueError as error:
        raise NoGateway(f"{plain(response.url.copy_with(query=None))} did not answer with JSON") from error


def refusal(response: httpx.Response) -> Refused:
    """The error in whichever of the interface's shapes it comes (problem+json, `{"error"}`, RFC 6749)."""
    try:
        answer = json.loads(response.content)
    except ValueError:
        answer = {}
    found = answer if isinstance(answer, dict) else {}
    # In the shapes of prediction protocols there is only a text: the code has a field of its own.
    coded = found.get("error") if "error_description" in found else response.headers.get("Sluice-Error-Code")
    code = found.get("code") or coded
    text = found.get("detail") or found.get("error_description") or found.get("error") or found.get("title")
    retry_after = response.headers.get("Retry-After", "")
    request_id = response.headers.get("X-Request-Id")
    told = f"HTTP {response.status_code}"
    if response.has_redirect_location:
        text = f"what is at this address is at {response.headers['Location']}: give the client the address there"
    if response.status_code == 500 and request_id:
        told += f", request {request_id}"
    kind = ModelNotFound if code in MODEL_CODES else _BY_STATUS.get(response.status_code, Refused)
    return kind(
        response.status_code,
        code,
        f"{text or response.reason_phrase or 'refused'} ({told})",
        retry_after_seconds=int(retry_after) if retry_after.isdecimal() else None,
        answer=found,
        request_id=request_id,
    )


def job_failure(document: Json) -> JobFailed:
    """The error that a job which ended without a result comes to."""
    return _BY_STATE.get(document["state"], JobFailed)(document)


def plain(url: httpx.URL) -> str:
    """An address as it may be shown: without a name and password, if somebody put them there."""
    return str(url.copy_with(userinfo=b"")).rstrip("/")
