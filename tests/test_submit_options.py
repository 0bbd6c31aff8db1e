"""The options of a submit: how they are read, and what a job is like that was submitted with them."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.job_terms import Terms, terms
from gateway.submit_options import DEFAULTS, OptionInvalid, SubmitOptions, read_submit_options
from model_store.job_policies import NO_POLICY, JobPolicy
from tests.quiet_gateway import QuietGateway
from tests.submit_kit import caller, jobs_of, submit, submitting
from workers.lanes import Priority

# 2026-01-02T03:04:05Z in milliseconds since 1970.
NOW = 1_767_323_045_000


def read(**headers: str) -> SubmitOptions:
    """As of headers whose names are written with underscores."""
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return read_submit_options(raw, lambda: NOW)


def test_who_asks_for_nothing_gets_what_everybody_gets():
    assert read(accept="*/*", prefer="wait=1") is DEFAULTS


def test_all_options_are_read():
    found = read(
        idempotency_key='"order 7"',
        sluice_priority="Interactive",
        sluice_deadline="2.5",
        sluice_max_attempts="1",
        sluice_webhook="https://example.org/x?y=1",
    )
    assert found == SubmitOptions("order 7", Priority.INTERACTIVE, 2.5, 1, "https://example.org/x?y=1")


@given(st.text(string.ascii_letters + string.digits + "-_.:/+= ", min_size=1, max_size=255))
def test_a_key_is_the_same_in_quotes_and_bare(text: str):
    if text == text.strip():
        assert read(idempotency_key=text).idempotency_key == text
    assert read(idempotency_key=f'"{text}"').idempotency_key == text


def test_what_is_escaped_in_quotes_is_meant_literally():
    assert read(idempotency_key=r'"a\"b\\c"').idempotency_key == r"a\"b\c".replace(r"\"", '"')


@pytest.mark.parametrize("moment", ["2026-01-02T03:05:05Z", "2026-01-02t04:05:05.000+01:00"])
def test_a_deadline_may_be_a_moment_by_the_databases_clock(moment: str):
    assert read(sluice_deadline=moment).deadline_seconds == 60.0


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("idempotency_key", ""),
        ("idempotency_key", '""'),
        ("idempotency_key", "x" * 256),
        ("idempotency_key", "a\tb"),
        ("idempotency_key", "a\x7fb"),
        ("idempotency_key", "caf\xe9"),
        ("idempotency_key", '"unclosed'),
        ("sluice_priority", "urgent"),
        ("sluice_deadline", "0"),
        ("sluice_deadline", "-1"),
        ("sluice_deadline", "nan"),
        ("sluice_deadline", "1e9"),
        ("sluice_deadline", "2026-01-02T03:04:04Z"),
        ("sluice_deadline", "2026-02-30T00:00:00Z"),
        ("sluice_deadline", "2026-01-02T03:04:05"),
        ("sluice_max_attempts", "0"),
        ("sluice_max_attempts", "11"),
        ("sluice_max_attempts", "two"),
        ("sluice_webhook", "ftp://example.org"),
        ("sluice_webhook", "https://"),
        ("sluice_webhook", "https://[::1/x"),
        ("sluice_webhook", "https://example.org/" + "x" * 2048),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_cannot_be_read_is_refused_with_the_name_of_its_header(header: str, value: str):
    with pytest.raises(OptionInvalid) as refused:
        read(**{header: value})
    assert header.replace("_", "-") in refused.value.message.lower()
    assert refused.value.status == 400


def test_an_option_given_twice_is_refused():
    with pytest.raises(OptionInvalid):
        read_submit_options([(b"sluice-priority", b"bulk")] * 2, lambda: NOW)


def test_a_job_may_ask_for_less_than_the_policy_allows_and_never_for_more():
    policy = JobPolicy(deadline_seconds=60, max_attempts=2)
    assert terms(DEFAULTS, NO_POLICY, 100) == Terms(100, 3)
    assert terms(DEFAULTS, policy, 100) == Terms(60, 2)
    assert terms(DEFAULTS, policy, 10) == Terms(10, 2)
    assert terms(SubmitOptions(deadline_seconds=5, max_attempts=1), policy, 100) == Terms(5, 1)
    assert terms(SubmitOptions(deadline_seconds=500, max_attempts=9), policy, 100) == Terms(60, 2)
    assert terms(SubmitOptions(max_attempts=9), NO_POLICY, 100) == Terms(100, 9)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with submitting(tmp_path) as made:
        yield made


def test_a_job_is_as_it_was_asked_for(gateway: QuietGateway):
    # given a caller that wants its job soon, once, or not at all
    headers = caller(gateway)
    # when it submits
    options = {"sluice_priority": "interactive", "sluice_deadline": "30", "sluice_max_attempts": "1"}
    answer = submit(gateway.http, headers, **options)
    # then the row says so
    assert (answer.status_code, answer.json()["priority"]) == (202, "interactive")
    job = jobs_of(gateway.parts.sessions)[0]
    assert (job.priority, job.max_attempts, job.deadline - job.created_at) == ("interactive", 1, 30_000)


def test_a_bad_option_is_told_in_the_shape_of_its_path_and_makes_no_job(gateway: QuietGateway):
    headers = caller(gateway)
    answer = submit(gateway.http, headers, sluice_priority="urgent")
    assert (answer.status_code, answer.json()) == (400, {"error": "Sluice-Priority is `interactive` or `bulk`"})
    assert jobs_of(gateway.parts.sessions) == []


def test_the_description_names_every_option(gateway: QuietGateway):
    paths = gateway.http.get("/openapi.json").json()["paths"]
    for path in ("/v1/models/{model}:submit", "/v2/models/{model}/infer"):
        names = {parameter["name"] for parameter in paths[path]["post"]["parameters"]}
        assert {"Idempotency-Key", "Sluice-Priority", "Sluice-Deadline", "Sluice-Max-Attempts"} <= names
