"""Admission: who a request comes from and which version it means, decided on pictures that change under it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from auth.errors import Reason, RequestInvalid, ScopeMissing, TokenInvalid, TokenMissing
from auth.grants import ACTIONS, Action, ClientRights, GrantSpec, Rights
from auth.keys import PublicKey, SigningKey, thumbprint
from auth.scopes import Scope
from auth.tokens import Claims, Issuer, Verifier
from gateway import admission as admission_module
from gateway.admission import Admission, Caller
from gateway.errors import RightsUnavailable
from model_store.catalog import Catalog, CatalogModel, CatalogVersion
from model_store.errors import LabelNotFound, ModelNotFound, SluiceError, VersionNotReady
from model_store.tables import State
from monitoring.metrics import TOKENS_REFUSED

NOW = 1_800_000_000


@dataclass
class Clock:
    """A clock that moves when it is told to; in seconds."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


class CountingVerifier(Verifier):
    """Counts how many tokens are really verified."""

    verified = 0

    def verify(self, token: str) -> Claims:
        self.verified += 1
        return super().verify(token)


def client(client_id: str = "cli_1", **changes: object) -> ClientRights:
    known = ClientRights(client_id, "reading-room", False, 0, frozenset({Scope.PREDICT, Scope.JOBS}), {})
    return replace(known, **changes)


def granting(*specs: GrantSpec) -> Mapping[str, tuple[GrantSpec, ...]]:
    return {model: tuple(spec for spec in specs if spec.model == model) for model in {spec.model for spec in specs}}


def catalog(
    states: Mapping[int, State], labels: Mapping[str, int] | None = None, also: Collection[str] = ()
) -> Catalog:
    """The model `mnist` with these versions and labels, and further models with an AVAILABLE version 1."""

    def model(name: str, states: Mapping[int, State], labels: Mapping[str, int]) -> CatalogModel:
        versions = {n: CatalogVersion(n, state, None, None, None, 64, 2, None, None) for n, state in states.items()}
        available = [number for number, state in states.items() if state is State.AVAILABLE]
        return CatalogModel(name, versions, labels, max(available, default=None))

    models = {"mnist": model("mnist", states, labels or {})}
    return Catalog({**models, **{name: model(name, {1: State.AVAILABLE}, {}) for name in also}})


@dataclass
class Fixed:
    """The pictures that admission looks at; a test replaces them as a gateway's snapshot does."""

    rights: Rights = field(default_factory=lambda: Rights({"cli_1": client(), "cli_2": client("cli_2")}))
    catalog: Catalog = field(default_factory=lambda: catalog({1: State.AVAILABLE, 2: State.AVAILABLE}))
    fresh: bool = True

    def require_fresh(self) -> None:
        if not self.fresh:
            raise RightsUnavailable("rights are unread", retry_after_seconds=1)


class Gate:
    """An admission with its collaborators."""

    def __init__(self) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        key = SigningKey(private, PublicKey(thumbprint(private.public_key()), "ES256", private.public_key()))
        self.clock = Clock()
        self.snapshot = Fixed()
        self.verifier = CountingVerifier(
            {key.public.kid: key.public}, issuer="sluice", audience="sluice", max_seconds=900, clock=self.clock
        )
        self.issuer = Issuer(key, issuer="sluice", audience="sluice", seconds=900, clock=self.clock)
        self.admission = Admission(self.verifier, self.snapshot)

    def token(self, client_id: str = "cli_1", *scopes: Scope) -> str:
        return self.issuer.issue(client_id, scopes or {Scope.PREDICT, Scope.JOBS})[0]

    def caller(self, token: str, query: bytes = b"") -> Caller:
        return self.admission.caller(sent(token), query)

    def with_grants(self, *specs: GrantSpec) -> Caller:
        """Gives the client exactly these grants and returns it as a caller."""
        self.snapshot.rights = Rights({"cli_1": client(grants=granting(*specs))})
        return self.caller(self.token())


def sent(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), (b"authorization", b"Bearer " + token.encode()), (b"accept", b"*/*")]


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


# Which version is meant


def target(
    gate: Gate, caller: Caller, version: int | None = None, label: str | None = None, model: str = "mnist"
) -> int:
    return gate.admission.target(caller, Action.PREDICT, model, version, label).number


def refusal(
    gate: Gate, caller: Caller, version: int | None = None, label: str | None = None, model: str = "mnist"
) -> str:
    """Class, status and text of the refusal, with the model's name taken out."""
    with pytest.raises(SluiceError) as refused:
        target(gate, caller, version, label, model)
    error = refused.value
    return f"{type(error).__name__} {error.status} {error.message}".replace(model, "MODEL")


def test_a_bare_name_means_the_highest_available_version(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE, 3: State.LOADING, 4: State.END})
    assert target(gate, gate.with_grants(GrantSpec("mnist"))) == 2


def test_versions_and_labels_are_found(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE}, {"stable": 1})
    caller = gate.with_grants(GrantSpec("mnist"))
    assert target(gate, caller, version=1) == 1
    assert target(gate, caller, label="stable") == 1
    with pytest.raises(LabelNotFound):
        target(gate, caller, label="canary")
    with pytest.raises(ModelNotFound, match=r"Specific\(mnist, 7\)"):
        target(gate, caller, version=7)


@pytest.mark.parametrize(
    ("version", "label"), [(None, None), (1, None), (50, None), (None, "stable"), (None, "canary")]
)
def test_a_model_without_a_grant_answers_as_an_unknown_one(gate: Gate, version: int | None, label: str | None):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE}, {"stable": 1}, also=["granted"])
    caller = gate.with_grants(GrantSpec("granted"))
    answer = refusal(gate, caller, version, label)
    assert answer == refusal(gate, caller, version, label, model="unknown")
    assert answer.startswith("ModelNotFound 404 Servable not found for request: ")


def test_a_version_without_a_grant_answers_as_an_unknown_one_whatever_its_state(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE, 3: State.LOADING, 4: State.END})
    caller = gate.with_grants(GrantSpec("mnist", version=1))
    assert target(gate, caller, version=1) == 1
    for version in (2, 3, 4, 5):
        assert (
            refusal(gate, caller, version)
            == f"ModelNotFound 404 Servable not found for request: Specific(MODEL, {version})"
        )


def test_a_bare_name_is_unknown_to_whoever_may_not_use_the_highest_version(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE})
    caller = gate.with_grants(GrantSpec("mnist", version=1))
    assert refusal(gate, caller) == "ModelNotFound 404 Servable not found for request: Latest(MODEL)"


def test_a_label_that_points_to_a_version_without_a_grant_answers_as_an_unknown_label(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE}, {"stable": 1, "canary": 2})
    caller = gate.with_grants(GrantSpec("mnist", version=1))
    assert target(gate, caller, label="stable") == 1
    known, unknown = refusal(gate, caller, label="canary"), refusal(gate, caller, label="shadow")
    assert known.replace("canary", "LABEL") == unknown.replace("shadow", "LABEL")


def test_a_grant_for_a_label_opens_the_version_under_any_name(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.AVAILABLE, 2: State.AVAILABLE}, {"stable": 1})
    caller = gate.with_grants(GrantSpec("mnist", label="stable"))
    assert target(gate, caller, label="stable") == 1
    assert target(gate, caller, version=1) == 1
    assert "ModelNotFound" in refusal(gate, caller, version=2)


def test_a_grant_for_another_action_is_no_grant(gate: Gate):
    caller = gate.with_grants(GrantSpec("mnist", actions=ACTIONS - {Action.PREDICT}))
    assert "ModelNotFound" in refusal(gate, caller)
    assert "ModelNotFound" in refusal(gate, caller, version=1)
    assert gate.admission.target(caller, Action.METADATA, "mnist").number == 2


def test_a_granted_version_in_preparation_is_not_ready_rather_than_unknown(gate: Gate):
    gate.snapshot.catalog = catalog({1: State.LOADING})
    for spec in (GrantSpec("mnist"), GrantSpec("mnist", version=1)):
        caller = gate.with_grants(spec)
        for version in (None, 1):
            with pytest.raises(VersionNotReady):
                target(gate, caller, version)
    caller = gate.with_grants(GrantSpec("mnist", version=2))
    assert refusal(gate, caller) == "ModelNotFound 404 Servable not found for request: Latest(MODEL)"


def test_a_withdrawn_grant_counts_for_the_next_request(gate: Gate):
    token = gate.token()
    gate.with_grants(GrantSpec("mnist"))
    assert target(gate, gate.caller(token)) == 2
    assert target(gate, gate.caller(token)) == 2
    gate.snapshot.rights = Rights({"cli_1": client()})
    assert "ModelNotFound" in refusal(gate, gate.caller(token))


def test_a_new_version_counts_for_the_next_request(gate: Gate):
    caller = gate.with_grants(GrantSpec("mnist"))
    assert target(gate, caller) == 2
    gate.snapshot.catalog = catalog({2: State.AVAILABLE, 3: State.AVAILABLE})
    assert target(gate, caller) == 3
    assert "ModelNotFound" in refusal(gate, caller, version=1)


def test_a_caller_admitted_before_a_change_does_not_prepare_the_answer_for_later_ones(gate: Gate):
    early = gate.with_grants(GrantSpec("mnist"))
    late = gate.with_grants(GrantSpec("mnist", version=1))
    assert target(gate, early, version=2) == 2
    assert "ModelNotFound" in refusal(gate, late, version=2)


def test_callers_of_different_clients_do_not_share_answers(gate: Gate):
    gate.snapshot.rights = Rights(
        {"cli_1": client(grants=granting(GrantSpec("mnist"))), "cli_2": client("cli_2", grants={})}
    )
    first, second = gate.caller(gate.token("cli_1")), gate.caller(gate.token("cli_2"))
    assert target(gate, first) == 2
    assert "ModelNotFound" in refusal(gate, second)


def test_the_number_of_remembered_targets_is_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admission_module, "MOST_REMEMBERED", 2)
    caller = gate.with_grants(GrantSpec("mnist"))
    for _ in range(3):
        assert [target(gate, caller), target(gate, caller, 1), target(gate, caller, 2)] == [2, 1, 2]


def test_threads_that_ask_while_pictures_change_get_answers_of_one_picture_or_the_other(gate: Gate):
    """No thread ever sees version 1 after it saw the picture without it, and none fails in another way."""
    token = gate.token()
    both = Rights({"cli_1": client(grants=granting(GrantSpec("mnist")))})
    one = Rights({"cli_1": client(grants=granting(GrantSpec("mnist", version=2)))})
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            caller = gate.caller(token)
            try:
                assert target(gate, caller, version=1) == 1
                assert caller.rights is both.clients["cli_1"]
            except ModelNotFound:
                assert caller.rights is one.clients["cli_1"]

    gate.snapshot.rights = both
    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for _ in range(2000):
            gate.snapshot.rights = one
            gate.snapshot.rights = both
        stop.set()
        for thread in asking:
            thread.result()
