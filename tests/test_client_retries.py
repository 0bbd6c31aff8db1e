"""What the Python client does about refusals, breaks and old tokens: what passes is waited for, the rest is told."""

from __future__ import annotations

import asyncio
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from auth.grants import GrantSpec
from auth.limits import Bounds
from auth.scopes import Scope
from model_store.database import transaction
from model_store.registry import publish
from sluice import AsyncClient, Client
from sluice.access_token import AccessToken, unreachable
from sluice.answers import (
    AnswerLate,
    CredentialsInvalid,
    DeadlinePassed,
    Forbidden,
    InputInvalid,
    ModelNotFound,
    NoGateway,
    NotFound,
    PredictionFailed,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
    Unreachable,
    job_failure,
    refusal,
)
from sluice.exchange import Asked, Pause
from sluice.listening_ports import free_port
from sluice.patience import persistently
from sluice.submit_options import KEY
from tests.client_kit import CLIENTS, login
from tests.hazard import hazard
from tests.processes import Cluster, wait_for
from tests.queue_kit import doubling_model, serve_model

ROW = np.array([[1.0, 2.0]], np.float32)
ASKED = Asked("GET", "/")
TOKEN = {"access_token": "t", "token_type": "Bearer", "expires_in": 900}

both = pytest.mark.parametrize("client", CLIENTS, ids=("threads", "asyncio"))


def answer(status: int, document: object = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, json=document or {}, request=httpx.Request("GET", "http://sluice/"))


def test_a_client_at_its_limit_waits_as_long_as_it_is_told(serving: Cluster):
    given = login(serving, "double", bounds=Bounds(requests_per_second=1.0, burst=1))
    with Client(*given, patience_seconds=0) as sluice:
        sluice.predict("double", ROW)
        with pytest.raises(RateLimited) as refused:
            sluice.predict("double", ROW)
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_seconds == 1
    with Client(*given) as sluice:
        assert sluice.predict("double", ROW).tolist() == [[2, 4]]


def test_a_model_that_is_being_prepared_is_waited_for(serving: Cluster, tmp_path: Path):
    with transaction(serving.sessions) as session:
        publish(session, "late", format="onnx", digest="0" * 64, size_bytes=1, uploaded_by="test")
    given = login(serving, "late")
    with Client(*given, patience_seconds=0) as sluice:
        wait_for(lambda: "late" in sluice.models(), 10)
        with pytest.raises(Unavailable) as refused:
            sluice.predict("late", [[1.0, 2.0]])
    assert (refused.value.status, refused.value.code) == (503, "version_not_ready")
    with Client(*given) as sluice, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sluice.predict, "late", ROW)
        serve_model(serving.sessions, serving.artifacts, doubling_model(tmp_path / "late.onnx"), "late")
        assert waiting.result(60).tolist() == [[2, 4]]


@both
def test_a_prediction_whose_connection_breaks_is_sent_again(serving: Cluster, client: Any):  # noqa: ANN401 - of two kinds
    url, client_id, secret = login(serving, "double")
    with hazard(url, {b"/infer": 2}) as way, client(way.url, client_id, secret) as sluice:
        assert sluice.predict("double", ROW).tolist() == [[2, 4]]
        assert way.broken == 2
    with (
        hazard(url, {b"/infer": 1000}) as lost,
        client(lost.url, client_id, secret, patience_seconds=2) as sluice,
        pytest.raises(Unreachable),
    ):
        sluice.predict("double", ROW)
    assert 1 < lost.broken < 10
    with client(f"http://127.0.0.1:{free_port()}", client_id, secret, patience_seconds=0) as sluice:
        with pytest.raises(Unreachable, match="cannot be reached"):
            sluice.predict("double", ROW)
        # What is asked for plainly is answered plainly.
        with pytest.raises(Unreachable):
            sluice.get("/v1/models")


def test_pauses_grow_and_are_as_long_as_retry_after_says():
    steps, pauses = persistently(ASKED, 100.0), []
    assert next(steps) == ASKED
    for _ in range(6):
        pause = steps.throw(Unreachable("no"))
        assert isinstance(pause, Pause)
        pauses.append(pause.seconds)
        assert steps.send(None) == ASKED
    assert all(0.125 * 2**place <= pause <= 0.25 * 2**place for place, pause in enumerate(pauses))
    told = steps.send(answer(429, Retry_After="3"))
    assert 3 <= told.seconds <= 7
    assert steps.send(None) == ASKED
    with pytest.raises(StopIteration):
        steps.send(answer(200))


def test_what_is_to_be_waited_for_longer_than_the_patience_is_told_at_once():
    steps = persistently(ASKED, 30.0)
    next(steps)
    with pytest.raises(RateLimited) as refused:
        steps.send(
            answer(429, {"error": "the day's quota is spent"}, Retry_After="3600", Sluice_Error_Code="quota_spent")
        )
    assert refused.value.code == "quota_spent"
    assert refused.value.retry_after_seconds == 3600


def test_what_killed_its_worker_is_sent_once_more_and_then_not_again():
    crash = answer(503, {"error": "whatever ran this died"}, Retry_After="1", X_Request_Id="abcdefgh")
    steps = persistently(ASKED, 60.0)
    next(steps)
    assert isinstance(steps.send(crash), Pause)
    steps.send(None)
    with pytest.raises(Unavailable):
        steps.send(crash)
    # What a gateway says of itself, or a proxy of a gateway, has nothing to do with the prediction.
    for passing in (answer(503, Sluice_Error_Code="queue_unavailable", X_Request_Id="abcdefgh"), answer(502)):
        steps = persistently(ASKED, 60.0)
        next(steps)
        for _ in range(3):
            assert isinstance(steps.send(passing), Pause)
            steps.send(None)


def test_a_prediction_that_is_under_way_is_not_computed_again_and_again():
    late = Unreachable("no answer in time", late=True)
    steps = persistently(Asked("POST", "/v1/models/m:predict"), 60.0)
    next(steps)
    with pytest.raises(AnswerLate, match="timeout_seconds"):
        steps.throw(late)
    # A question changes nothing, and a submit is one job.
    for asked in (ASKED, Asked("POST", "/v1/models/m:submit", headers={KEY: "k"})):
        steps = persistently(asked, 60.0)
        next(steps)
        assert isinstance(steps.throw(late), Pause)
    assert unreachable(httpx.URL("http://s"), httpx.ReadTimeout("late"), asked=True).late
    assert not unreachable(httpx.URL("http://s"), httpx.ConnectTimeout("late"), asked=True).late


@both
def test_where_a_gateway_is_instead_is_told_at_once(serving: Cluster, client: Any):  # noqa: ANN401 - of two kinds
    url, *who = login(serving, "double")
    with client(url.replace("http:", "https:"), *who) as sluice, pytest.raises(NoGateway, match="WRONG_VERSION_NUMBER"):
        sluice.predict("double", ROW)
    moved = refusal(answer(308, Location="https://sluice.example/oauth/token"))
    assert "is at https://sluice.example/oauth/token: give" in str(moved)
    with client(url, *who) as sluice, pytest.raises(ValueError, match="no path of the gateway"):
        sluice.get("http://elsewhere.example/v1/models")


def test_an_address_without_a_gateway_is_told_at_once(tmp_path: Path):
    steps = persistently(ASKED, 60.0)
    next(steps)
    with pytest.raises(NoGateway, match="no Sluice gateway"):
        steps.throw(NoGateway("http://sluice answers, but is no Sluice gateway"))
    verification = ssl.SSLCertVerificationError("self-signed certificate")
    for error, kind in (
        (httpx.ConnectError("refused"), Unreachable),
        (httpx.ReadTimeout("late"), Unreachable),
        (_caused(httpx.ConnectError("TLS"), verification), NoGateway),
    ):
        assert type(unreachable(httpx.URL("https://sluice"), error)) is kind
    for address in ("sluice.example", "ftp://sluice.example", "http://", "http://a:b:c"):
        with pytest.raises(CredentialsInvalid):
            Client(address, "cli_x", "sls_x")
    file = tmp_path / "credentials.json"
    file.write_text('{"base_url": 5, "client_id": "cli_x", "client_secret": "sls_x"}')
    with pytest.raises(CredentialsInvalid, match="something else than a text"):
        Client.from_file(file)


def _caused(error: httpx.HTTPError, cause: Exception) -> httpx.HTTPError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 500, 504])
def test_what_does_not_pass_is_not_asked_again(status: int):
    steps = persistently(ASKED, 60.0)
    next(steps)
    with pytest.raises(Refused) as refused:
        steps.send(answer(status))
    assert refused.value.status == status


def test_every_refusal_has_its_kind_text_code_and_request():
    for given, kind in (
        (answer(400), InputInvalid),
        (answer(400, Sluice_Error_Code="label_not_found"), ModelNotFound),
        (answer(401, {"error": "invalid_client", "error_description": "wrong"}), Unauthorized),
        (answer(403), Forbidden),
        (answer(404, {"code": "job_not_found", "detail": "no such job"}), NotFound),
        (answer(404, {"error": "no"}, Sluice_Error_Code="model_not_found"), ModelNotFound),
        (answer(409), Refused),
        (answer(413), InputInvalid),
        (answer(422), InputInvalid),
        (answer(429), RateLimited),
        (answer(500), PredictionFailed),
        (answer(503), Unavailable),
        (answer(504), DeadlinePassed),
    ):
        assert type(refusal(given)) is kind
    found = refusal(answer(500, {"error": "it broke"}, X_Request_Id="req-0815", Sluice_Error_Code="prediction_failed"))
    assert str(found) == "it broke (HTTP 500, request req-0815)"
    assert (found.code, found.request_id) == ("prediction_failed", "req-0815")
    assert (
        str(job_failure({"id": "j", "state": "failed", "error": {"code": "c", "message": "why"}}))
        == "job j failed: why"
    )


def test_many_callers_with_an_old_token_fetch_one_new_token(serving: Cluster):
    given = login(serving, "double")
    with Client(*given) as sluice:
        before = sluice.token()
        sluice.revoke(before)
        _until_refused(given[0], before)
        fetched: list[str] = []
        sluice._link._http.event_hooks["request"].append(lambda request: fetched.append(request.url.path))
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: sluice.predict("double", ROW).tolist(), range(24)))
        assert found == [[[2, 4]]] * 24
        assert fetched.count("/oauth/token") == 1
        assert sluice.token() != before


def test_many_tasks_with_an_old_token_fetch_one_new_token(serving: Cluster):
    given = login(serving, "double")
    fetched: list[str] = []

    async def note(request: httpx.Request) -> None:
        fetched.append(request.url.path)

    async def ask() -> list[object]:
        async with AsyncClient(*given) as sluice:
            before = await sluice.token()
            with Client(*given) as other:
                other.revoke(before)
            _until_refused(given[0], before)
            sluice._link._http.event_hooks["request"].append(note)
            found = await asyncio.gather(*(sluice.predict("double", ROW * number) for number in range(40)))
            return [one.tolist() for one in found]

    assert asyncio.run(ask()) == [[[2.0 * number, 4.0 * number]] for number in range(40)]
    assert fetched.count("/oauth/token") == 1


def _until_refused(url: str, token: str) -> None:
    until = time.monotonic() + 10
    while httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {token}"}).status_code != 401:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_token_is_renewed_before_it_ends():
    token = AccessToken()
    assert token.fresh() is None
    assert token.take(answer(200, TOKEN), time.monotonic()) == "t"
    assert token.fresh() == "t"
    # Somebody else's refusal is no reason to fetch another one.
    assert token.fresh(refused="before") == "t"
    assert token.fresh(refused="t") is None
    token.take(answer(200, TOKEN), time.monotonic() - 850)
    assert token.fresh() is None
    with pytest.raises(Unreachable, match="no Sluice gateway"):
        token.take(answer(200, {"hello": "world"}), time.monotonic())


@both
def test_nothing_that_is_shown_has_the_secret_in_it(serving: Cluster, client: Any):  # noqa: ANN401 - of two kinds
    url, client_id, secret = login(serving, GrantSpec("double"), scopes=(Scope.JOBS,))
    with client(url.replace("://", "://name:pass@"), client_id, secret) as sluice:
        token = sluice.token()
        with pytest.raises(Forbidden) as forbidden:
            sluice.predict("double", ROW)
        shown = [repr(sluice), sluice.base_url, repr(forbidden.value), str(vars(forbidden.value))]
    with client(url, client_id, secret + "x") as sluice, pytest.raises(Unauthorized) as refused:
        sluice.predict("double", ROW)
    with client("http://name:pass@127.0.0.1:1", client_id, secret, patience_seconds=0) as sluice:
        with pytest.raises(Unreachable) as lost:
            sluice.predict("double", ROW)
        shown += [repr(refused.value), str(vars(refused.value)), repr(lost.value), repr(sluice)]
    assert client_id in shown[0] + shown[-1]
    for text in shown:
        assert secret not in text
        assert token not in text
        assert "pass" not in text
