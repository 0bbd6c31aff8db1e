"""What happens to every request once, around applications that behave badly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.middleware import BodyLimit, RequestContext

LIMIT_BYTES = 100
START: Message = {"type": "http.response.start", "status": 400, "headers": []}


async def failing(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    raise ZeroDivisionError("what only the log may tell")


async def failing_halfway(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as above
    await send({**START, "status": 200})
    raise ZeroDivisionError


async def reading(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as above
    """Reads the whole body, and takes everything that goes wrong meanwhile for a bad request, as FastAPI does."""
    try:
        while (await receive()).get("more_body"):
            pass
        status = 200
    except Exception:  # noqa: BLE001 - what it is about
        status = 400
    await send({**START, "status": status})
    await send({"type": "http.response.body", "body": b"read"})


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Goes away without an answer, as for a caller who hung up."""


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - as above
    """Begins its answer before it reads the body."""
    await send({**START, "status": 200})
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.body", "body": b"done"})


def asked(app: ASGIApp, path: str = "/v1/jobs", *, content: bytes = b"", announced: bool = True) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 10):
            yield content[start : start + 10]

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            body = content if announced else pieces()
            return await client.post(path, content=body, headers={"X-Request-Id": "request-1"})

    return asyncio.run(ask())


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models/m"])
def test_an_unforeseen_failure_is_answered_with_the_id_under_which_it_is_logged(
    path: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR):
        answer = asked(RequestContext(failing, conclude=lambda *_: None), path)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "request-1")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert list(answer.json()) == (["error"] if "models" in path else ["type", "title", "status", "code", "detail"])
    assert "what only the log may tell" not in answer.text
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_half_an_answer_is_not_followed_by_another_one():
    with pytest.raises(ZeroDivisionError):
        asked(RequestContext(failing_halfway, conclude=lambda *_: None))


@pytest.mark.parametrize(("size", "status"), [(LIMIT_BYTES, 200), (LIMIT_BYTES + 1, 413)])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_413_whatever_the_application_makes_of_it(size: int, status: int, announced: bool):
    answer = asked(BodyLimit(reading, LIMIT_BYTES), content=b"x" * size, announced=announced)
    assert answer.status_code == status
    if status == 413:
        assert answer.json()["code"] == "body_too_large"
        assert answer.headers["connection"] == "close"


def test_an_answer_that_has_begun_is_not_replaced():
    with pytest.raises(Exception, match="larger than 100 bytes"):
        asked(BodyLimit(hasty, LIMIT_BYTES), content=b"x" * 200, announced=False)


def test_no_answer_stays_no_answer():
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": []}
    asyncio.run(BodyLimit(silent, LIMIT_BYTES)(scope, receive, send))
    assert sent == []
