"""Content types of prediction bodies: JSON is taken whatever it is called, and what else is read says the address."""

from __future__ import annotations

import asyncio

import pytest

from gateway.body_types import ContentTypeUnsupported, type_of_file
from gateway.prediction_bodies import read_prediction
from workers.protocols.body import Body, Dialect

PREDICT, INFER = Dialect.TENSORFLOW_SERVING, Dialect.OPEN_INFERENCE
ALL = [PREDICT, INFER, Dialect.CLASSIFY, Dialect.REGRESS, Dialect.EXPLAIN]


def read(kind: str | None, data: bytes, dialect: Dialect) -> Body:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": data}

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    return asyncio.run(read_prediction(headers, receive, 1000, dialect))


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.label)
@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "application/json", "text/plain", "a/b"])
def test_an_object_of_json_is_json_whatever_it_is_called(kind: str | None, dialect: Dialect):
    for data in (b'{"inputs": []}', b'\r\n\t {"inputs": []}'):
        assert read(kind, data, dialect) == Body(data, dialect)


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.label)
@pytest.mark.parametrize(
    "kind", [None, "application/x-www-form-urlencoded", "Application/JSON; charset=utf-8", "text/json", "a/b+json"]
)
def test_what_is_called_json_or_nothing_is_read_as_json_and_faulted_as_such(kind: str | None, dialect: Dialect):
    for data in (b"", b"[1]", b"\x89PNG"):
        assert read(kind, data, dialect) == Body(data, dialect)


@pytest.mark.parametrize("kind", ["image/png", "Audio/WAV", "text/plain;charset=utf-8", "multipart/form-data; b"])
def test_files_are_for_predict_alone(kind: str):
    headers = [(b"content-type", kind.encode())]
    assert type_of_file(headers, b"\x89PNG", PREDICT) == kind.encode()
    for dialect in ALL[1:]:
        with pytest.raises(ContentTypeUnsupported, match="takes files as they are"):
            type_of_file(headers, b"\x89PNG", dialect)


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.label)
def test_any_other_type_is_refused_in_words_that_may_be_shown(dialect: Dialect):
    for kind in ("application/xml", "application/x-yaml", "application/octet-stream", "\x7f" * 500):
        with pytest.raises(ContentTypeUnsupported) as caught:
            read(kind, b"<a/>", dialect)
        assert caught.value.message.startswith("this address takes JSON (application/json)")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 400
