"""KServe's own REST client, by both of its protocols, in an environment of its own."""

from __future__ import annotations

from typing import Any

import pytest

from auth.scopes import Scope
from tests.foreign_clients import limit_rate, token_of, visit
from tests.processes import Cluster

DOUBLED = [[2.0, 4.0], [6.0, -9.0]]

pytestmark = pytest.mark.long  # its packages are fetched


@pytest.fixture(scope="module")
def found(serving: Cluster) -> dict[str, Any]:
    """What the client found, by protocol."""
    hurried = serving.caller("double", scopes=[Scope.PREDICT])
    limit_rate(serving, hurried)
    caller = serving.caller("double", scopes=[Scope.PREDICT])
    asked = {"url": serving.gateways[0], "token": token_of(caller), "hurried_token": token_of(hurried)}
    return visit("kserve_client", asked)


def test_the_open_inference_protocol_answers_as_json_and_as_bytes(found: dict[str, Any]):
    told = found["v2"]
    assert [told[name] for name in ("live", "ready", "model ready", "unknown ready")] == [True, True, True, False]
    for form in ("bytes", "json"):
        for answer in ("bytes", "json"):
            assert told[f"{form} answered as {answer}"] == DOUBLED
    assert told["by parameter"] == DOUBLED
    assert told["as a dict"] == [2, 4]
    assert told["answer"] == ["order-0815", "double"]


def test_the_first_protocol_predicts_and_tells_what_is_ready(found: dict[str, Any]):
    told = found["v1"]
    assert [told["live"], told["model ready"], told["unready ready"][0]] == [True, True, 404]
    assert told["predictions"] == {"predictions": DOUBLED}


def test_refusals_arrive_as_the_clients_own_exception_with_the_text(found: dict[str, Any]):
    refusals = {name: told for name, told in (found["v1"] | found["v2"]).items() if name.startswith(("no ", "too "))}
    statuses = {name: told[0] for name, told in refusals.items()}
    assert statuses == {"no token": 401, "no grant": 404, "no model": 404, "no fit": 400, "too many": 429}
    # What the body says stands in front of the client's own words.
    assert all(len(text.partition(", '")[0]) > 10 for _, text in refusals.values())
