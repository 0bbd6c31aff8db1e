"""Contexts of examples: what they mean, where they are wrong, and how much they may be written out to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model_store.signature import Signature, Tensor, TensorSpec
from tests.dialect_kit import signature_of
from workers.errors import InputInvalid
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.examples import parse_regress

VALUE = (TensorSpec("y", "float32", (None, 1)),)
MANY = 100_000


def taking(dtype: str, *shape: int | None) -> Signature:
    return signature_of(TensorSpec("x", dtype, shape), outputs=VALUE)


def parsed(signature: Signature, body: object) -> dict[str, Tensor]:
    data = Body(json.dumps(body).encode(), Dialect.REGRESS)
    return parse_regress(data, Contract("m", 1, signature, MANY)).tensors


def read(signature: Signature, *examples: object, **more: object) -> dict[str, Tensor]:
    return parsed(signature, {"examples": examples, **more})


def refusal(signature: Signature, body: object) -> str:
    with pytest.raises(InputInvalid) as caught:
        parsed(signature, body)
    return caught.value.message


@pytest.mark.parametrize("shape", [(None,), (None, 3), (None, 2, 2), (None, None), (4, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "string"])
def test_a_context_means_what_it_means_written_out(dtype: str, shape: tuple[int | None, ...]):
    signature = taking(dtype, *shape)
    values: dict[str, list[object]] = {"bool": [True, 0], "string": ["a", "é"], "int8": [1, -2], "float32": [0.5, 3]}
    size = {(None,): 1, (None, 2, 2): 4}.get(shape, 3)
    shared, own = ([value] * size for value in values[dtype])
    for said in ((), (0,), (1, 3), (0, 1, 2, 3)):
        examples = [{"x": own} if number in said else {} for number in range(4)]
        written = read(signature, *({"x": shared} | example for example in examples))["x"]
        found = read(signature, *examples, context={"x": shared})["x"]
        assert (found.dtype, found.shape, found.tolist()) == (written.dtype, written.shape, written.tolist())


def test_what_is_wrong_in_a_context_is_told_of_it_and_what_is_wrong_in_an_example_of_its_number():
    signature = taking("float32", None, None)
    body: dict[str, Any] = {"context": {"x": [1, "2"]}, "examples": [{}]}
    assert 'JSON Value: "2" Type: String is not of expected type: float at context.x[1]' in refusal(signature, body)
    assert "could not be found at context;" in refusal(signature, {"context": {"x": []}, "examples": [{}]})
    body = {"context": {"x": [1, 2]}, "examples": [{}, {}, {"x": [1, "2"]}]}
    assert "at examples[2].x[1]" in refusal(signature, body)
    body["examples"][2] = {"x": [1, 2, 3]}
    assert "examples[2].x has another shape than context.x" in refusal(signature, body)
    assert "Encountered 2 examples" in refusal(taking("float32", 3), {"context": {"x": 1}, "examples": [{}, {}]})


WIDE = taking("float32", None, None)
SEVERAL = signature_of(*(TensorSpec(f"x{number}", "float64", (None,)) for number in range(40)), outputs=VALUE)


@pytest.mark.parametrize(
    ("signature", "context", "count"),
    [
        pytest.param(WIDE, {"x": [0] * 10_000}, 1000, id="numbers"),
        pytest.param(taking("string", None), {"x": "a" * 10_000}, 2000, id="a text"),
        pytest.param(taking("string", None, None), {"x": [""] * 10_000}, 1000, id="empty texts"),
        pytest.param(SEVERAL, {f"x{number}": 0 for number in range(40)}, MANY, id="all inputs together"),
        pytest.param(
            signature_of(TensorSpec("inputs", "string", (None,)), outputs=VALUE),
            {str(number): 0 for number in range(2000)},
            1000,
            id="examples that the model parses",
        ),
    ],
)
def test_a_small_context_does_not_become_large_inputs(signature: Signature, context: dict[str, object], count: int):
    said = refusal(signature, {"context": context, "examples": [{}] * count})
    assert said.startswith("'context' of ")
    assert f"would be copied to {count} examples" in said
