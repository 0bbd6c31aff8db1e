"""Admission: who a request comes from, decided on pictures of rights that change under it."""

from __future__ import annotations

import pytest

from auth.errors import Reason, RequestInvalid, ScopeMissing, TokenInvalid, TokenMissing
from auth.rights import Rights
from auth.scopes import Scope
from gateway import admission as admission_module
from gateway.errors import RightsUnavailable
from monitoring.metrics import TOKENS_REFUSED
from tests.gate import NOW, Gate, client, sent


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_a_good_token_says_who_is_calling(gate: Gate):
    caller = gate.caller(gate.token())
    assert (caller.client_id, caller.name, caller.scopes) == ("cli_1", "reading-room", {Scope.PREDICT, Scope.JOBS})


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER "])
def test_the_scheme_is_read_in_any_case(gate: Gate, scheme: bytes):
    headers = [(b"authorization", scheme + gate.token().encode())]
    assert gate.admission.caller(headers, b"").client_id == "cli_1"


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Basic YTpi")], [(b"authorization", b"")]])
def test_without_a_bearer_token_the_challenge_has_no_error(gate: Gate, headers: list[tuple[bytes, bytes]]):
    with pytest.raises(TokenMissing) as refused:
        gate.admission.caller(headers, b"")
    assert refused.value.status == 401
    assert refused.value.challenge == 'Bearer realm="sluice"'


@pytest.mark.parametrize(
    "value", [b"Bearer ", b"Bearer  x.y.z", b"Bearer \xff", b"Bearer a b", b"Bearer " + b"x" * 70000]
)
def test_a_header_without_a_proper_token_is_refused(gate: Gate, value: bytes):
    with pytest.raises(TokenInvalid):
        gate.admission.caller([(b"authorization", value)], b"")


def test_two_authorization_headers_are_refused(gate: Gate):
    with pytest.raises(RequestInvalid) as refused:
        gate.admission.caller(sent(gate.token()) + sent(gate.token()), b"")
    assert refused.value.status == 400
    assert 'error="invalid_request"' in str(refused.value.challenge)


@pytest.mark.parametrize(
    "query", [b"access_token=x", b"a=1&access_token=", b"%61ccess_token=x", b"a=%20&access%5Ftoken=x"]
)
def test_a_token_in_header_and_query_is_refused(gate: Gate, query: bytes):
    with pytest.raises(RequestInvalid):
        gate.caller(gate.token(), query)


def test_a_token_in_the_query_alone_is_not_honoured(gate: Gate):
    with pytest.raises(TokenMissing):
        gate.admission.caller([], b"access_token=" + gate.token().encode())


@pytest.mark.parametrize("query", [b"wait=5", b"a=access_token", b"x_access_token=1", b"a=%41"])
def test_other_queries_are_none_of_admissions_business(gate: Gate, query: bytes):
    assert gate.caller(gate.token(), query).client_id == "cli_1"


def test_a_query_with_thousands_of_fields_is_refused(gate: Gate):
    with pytest.raises(RequestInvalid):
        gate.caller(gate.token(), b"%61=1" + b"&a" * 2000)


def test_a_token_is_verified_once_and_then_remembered(gate: Gate):
    token = gate.token()
    callers = {gate.caller(token) for _ in range(5)}
    assert gate.verifier.verified == 1
    assert len(callers) == 1


def test_a_remembered_token_expires_like_any_other(gate: Gate):
    token = gate.token()
    gate.caller(token)
    gate.clock.now += 929
    gate.caller(token)
    gate.clock.now += 1
    for _ in range(2):
        with pytest.raises(TokenInvalid) as refused:
            gate.caller(token)
        assert refused.value.reason is Reason.EXPIRED


def test_a_refused_token_is_not_remembered(gate: Gate):
    for _ in range(3):
        with pytest.raises(TokenInvalid):
            gate.caller("a.b.c")
    assert gate.verifier.verified == 3


def test_the_number_of_remembered_tokens_is_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admission_module, "MOST_REMEMBERED", 3)
    tokens = [gate.token() for _ in range(5)]
    for token in tokens:
        gate.caller(token)
    gate.caller(tokens[4])
    assert gate.verifier.verified == 5
    gate.caller(tokens[0])
    assert gate.verifier.verified == 6, "the oldest had left"


@pytest.mark.parametrize(
    ("rights", "reason"),
    [
        (Rights({}), Reason.CLIENT_UNKNOWN),
        (Rights({"cli_1": client(disabled=True)}), Reason.CLIENT_DISABLED),
        (Rights({"cli_1": client(tokens_not_before=NOW * 1000 + 1)}), Reason.REVOKED),
    ],
    ids=["deleted", "disabled", "secret rotated"],
)
def test_a_change_of_the_client_counts_for_the_next_request(gate: Gate, rights: Rights, reason: Reason):
    token, fresh = gate.token(), gate.token()
    gate.caller(token)
    gate.snapshot.rights = rights
    for probe in (token, fresh):
        with pytest.raises(TokenInvalid) as refused:
            gate.caller(probe)
        assert refused.value.reason is reason
        assert refused.value.message == "the access token is not valid"


def test_a_token_of_the_very_moment_of_a_revocation_is_good(gate: Gate):
    gate.snapshot.rights = Rights({"cli_1": client(tokens_not_before=NOW * 1000)})
    assert gate.caller(gate.token()).client_id == "cli_1"


def test_a_token_has_no_scope_that_its_client_has_lost(gate: Gate):
    token = gate.token()
    gate.admission.require(gate.caller(token), Scope.JOBS)
    gate.snapshot.rights = Rights({"cli_1": client(scopes=frozenset({Scope.PREDICT, Scope.CLIENTS_ADMIN}))})

    caller = gate.caller(token)

    assert caller.scopes == {Scope.PREDICT}
    gate.admission.require(caller, Scope.PREDICT)
    for scope in (Scope.JOBS, Scope.CLIENTS_ADMIN):
        with pytest.raises(ScopeMissing) as refused:
            gate.admission.require(caller, scope)
        assert refused.value.status == 403
        assert refused.value.challenge == f'Bearer realm="sluice", error="insufficient_scope", scope="{scope}"'


def test_a_token_for_less_stays_a_token_for_less(gate: Gate):
    caller = gate.caller(gate.token("cli_1", Scope.JOBS))
    with pytest.raises(ScopeMissing):
        gate.admission.require(caller, Scope.PREDICT)


def test_stale_rights_admit_nobody(gate: Gate):
    token = gate.token()
    gate.caller(token)
    gate.snapshot.fresh = False
    with pytest.raises(RightsUnavailable):
        gate.caller(token)
    with pytest.raises(TokenMissing):
        gate.admission.caller([], b"")


def test_refusals_are_counted_by_reason(gate: Gate):
    def count() -> float:
        return float(TOKENS_REFUSED.labels("malformed")._value.get())

    before = count()
    with pytest.raises(TokenInvalid):
        gate.caller("nonsense")
    assert count() == before + 1
