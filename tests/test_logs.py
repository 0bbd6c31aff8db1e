"""Logs: one JSON object a line, bound fields, no forged lines, no secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.logs import (
    EXCEPTION_CHARACTERS,
    MASK,
    MESSAGE_CHARACTERS,
    VALUE_CHARACTERS,
    JsonFormatter,
    bind,
    masked,
)

TOKEN = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJjbGlfMSJ9.c2lnbmF0dXJl-_x"
SECRET = "sls_Zk3v9-Q_x8Jp0aYt7LmNbVcXz"


def line_of(message: object, *arguments: object) -> dict[str, Any]:
    failed = sys.exc_info() if sys.exc_info()[0] else None
    record = logging.LogRecord("workers.drain", logging.INFO, "drain.py", 1, message, arguments, failed)
    text = JsonFormatter("worker").format(record)
    assert "\n" not in text
    assert text.isascii()
    return json.loads(text)


def run_configured(script: str) -> list[dict[str, Any]]:
    """What a configured process wrote to standard error, line by line."""
    program = "import logging, sys\nfrom monitoring import logs\nlogs.configure('worker')\n" + textwrap.dedent(script)
    finished = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=False, timeout=60)
    return [json.loads(line) for line in finished.stderr.decode().splitlines()]


def test_a_line_says_when_who_and_what():
    line = line_of("drained %d entries", 3)

    assert line["message"] == "drained 3 entries"
    assert (line["level"], line["logger"], line["process"], line["pid"]) == (
        "info",
        "workers.drain",
        "worker",
        os.getpid(),
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)


def test_bound_fields_stand_in_every_line_of_their_block_and_nowhere_else():
    with bind(request_id="r1", client_id="cli_1", model=None):
        with bind(job_id=7):
            inner = line_of("x")
        outer = line_of("x")
    after = line_of("x")

    assert (inner["request_id"], inner["client_id"], inner["job_id"]) == ("r1", "cli_1", "7")
    assert "model" not in inner
    assert "job_id" not in outer
    assert outer["request_id"] == "r1"
    assert "request_id" not in after


def test_concurrent_requests_do_not_see_each_others_fields():
    async def request(number: int) -> str:
        with bind(request_id=f"r{number}"):
            await asyncio.sleep(0)
            line = await asyncio.to_thread(line_of, "x")
            return str(line["request_id"])

    async def requests() -> list[str]:
        return await asyncio.gather(*(request(number) for number in range(20)))

    assert asyncio.run(requests()) == [f"r{number}" for number in range(20)]


def test_a_bound_field_cannot_replace_the_lines_own():
    with bind(level="critical", message="forged", request_id="r1"):
        line = line_of("true")

    assert (line["level"], line["message"]) == ("info", "true")


@given(st.text())
def test_no_text_can_forge_a_line_or_reach_a_terminal(text: str):
    with bind(model=text):
        record = logging.LogRecord("x", logging.INFO, "", 1, "%s", (text,), None)
        written = JsonFormatter("worker").format(record)

    assert all(" " <= character <= "~" for character in written)
    assert json.loads(written)["process"] == "worker"


def test_long_texts_are_cut():
    with bind(model="m" * 10_000):
        line = line_of("x" * 1_000_000)

    assert len(line["model"]) == VALUE_CHARACTERS
    assert len(line["message"]) == MESSAGE_CHARACTERS


def test_of_a_traceback_that_came_as_a_message_the_end_is_kept():
    message = line_of("Traceback (most recent call last):\n" + "  frame\n" * 10_000 + "OSError: the port is taken")[
        "message"
    ]
    assert message.endswith("OSError: the port is taken")
    assert len(message) == EXCEPTION_CHARACTERS


def test_an_exception_is_one_escaped_string_without_its_secrets():
    def fail() -> None:
        raise ValueError(f"refused {TOKEN}\nsecond line of {SECRET}")

    try:
        fail()
    except ValueError:
        line = line_of("failed")

    assert line["exception"].startswith("Traceback")
    assert "second line" in line["exception"]
    assert TOKEN not in line["exception"]
    assert SECRET not in line["exception"]


@pytest.mark.parametrize(
    "text",
    [
        f"token {TOKEN} refused",
        TOKEN[:25],
        f"Authorization: Bearer {TOKEN}",
        "Authorization: Bearer opaque-token-0123456789",
        "(b'authorization', b'Basic Y2xpZW50OnZlcnktc2VjcmV0')",
        "{'Authorization': 'Bearer opaque-token-0123456789'}",
        "sent bearer opaque-token-0123456789 to it",
        f"created with {SECRET}",
        f"refreshed with {SECRET.replace('sls_', 'slr_')}, chosen with {SECRET.replace('sls_', 'slo_')}",
        "redis://:opaque-token-0123456789@127.0.0.1:6379/0 is away",
        "redis://user:opaque-token-0123456789@host/0",
        "postgresql+psycopg://sluice:opaque-token-0123456789@db/sluice",
        "postgresql://sluice:opaque-token-0123456789@with-at@db/sluice",
        "GET /v1/models?access_token=opaque-token-0123456789&x=1",
        "client_id=a&client_secret=opaque-token-0123456789&scope=predict",
        '{"client_secret": "opaque-token-0123456789"}',
        "SLUICE_CLIENT_SECRET_KEY=opaque-token-0123456789",
        "password='opaque-token-0123456789'",
        "POSTGRES_PASSWORD: opaque-token-0123456789",
        "-----BEGIN PRIVATE KEY-----\nopaque-token-0123456789\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----\nopaque-token-0123456789 (cut off here)",
    ],
)
def test_what_looks_like_a_secret_is_masked_in_messages_arguments_and_fields(text: str):
    with bind(header=text):
        lines = [line_of(text.replace("%", "%%")), line_of("%s", text), line_of("%r", {"x": text})]

    assert MASK in masked(text)
    for line in lines:
        written = json.dumps(line)
        for secret in ("opaque-token-0123456789", "Y2xpZW50OnZlcnktc2VjcmV0", TOKEN[:25], SECRET):
            assert secret not in written


@pytest.mark.parametrize(
    "text",
    [
        "prepared mnist version 3 in 2.1 s",
        "http://127.0.0.1:8080/v1/models/mnist is ready",
        "client cli_4fYx0 has basic rights",
        "2026-11-22T13:00:00Z sha256:9f86d081884c7d659a2feaa0c55ad015",
        "secrets rotated, password policy unchanged",
    ],
)
def test_ordinary_text_is_left_alone(text: str):
    assert masked(text) == text


@given(st.text(), st.text())
def test_a_token_or_a_clients_secret_is_masked_wherever_it_stands(before: str, after: str):
    for secret in (TOKEN, SECRET):
        assert secret not in masked(before + secret + after)


def test_arguments_that_do_not_fit_are_neither_lost_nor_printed():
    line = line_of("took %d ms", SECRET)

    assert line["message"] == "took %d ms (arguments do not fit)"


def test_all_loggers_of_a_process_write_json_only():
    lines = run_configured(
        """
        import logging.config, uvicorn.config
        logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)
        logging.getLogger("celery").addHandler(logging.StreamHandler(sys.stderr))
        logs.configure("worker")
        logging.getLogger("uvicorn.access").info('%s - "%s"', "127.0.0.1", "GET /x?access_token=abcdefgh")
        logging.getLogger("uvicorn.error").info("Started server process")
        logging.getLogger("celery.task").warning("a task")
        logging.getLogger("kombu").error("connection lost")
        logging.getLogger("model_store").debug("not at this level")
        import warnings
        warnings.warn("something is old", stacklevel=1)
        """
    )

    assert [line["logger"] for line in lines] == [
        "uvicorn.access",
        "uvicorn.error",
        "celery.task",
        "kombu",
        "py.warnings",
    ]
    assert lines[0]["message"] == f'127.0.0.1 - "GET /x?access_token={MASK}"'


def test_uncaught_exceptions_are_lines_too():
    lines = run_configured(
        """
        import threading
        def fail():
            raise RuntimeError("redis://:hunter2hunter2@host is away")
        thread = threading.Thread(target=fail, name="sweep")
        thread.start()
        thread.join()
        fail()
        """
    )

    assert [line["message"] for line in lines] == ["uncaught exception in thread sweep", "uncaught exception"]
    assert all("hunter2" not in line["exception"] and "RuntimeError" in line["exception"] for line in lines)
