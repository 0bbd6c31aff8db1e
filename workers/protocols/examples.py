"""The classify and regress dialects of TensorFlow Serving's REST interface: examples of named features.

Source: tensorflow_serving/g3doc/api_rest.md and util/json_tensor.cc, whose messages are kept where its clients may know
them. There, examples reach a model as serialized `tensorflow.Example`s, which its graph parses. Here each input of the
signature is filled from the feature of its name; a model whose only input are such texts, named `inputs`, gets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store.signature import STRING, Signature, Tensor, Tensors
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract, Request, by_terms, instance_count
from workers.protocols.errors import excerpt, invalid, json_type, shown_name
from workers.protocols.example_bytes import entry_bytes, serialized_example
from workers.protocols.example_features import CONTEXT, EXAMPLES, Example, features_of, require_room
from workers.protocols.example_results import ClassOutputs, class_outputs, classes_text, value_output, values_text
from workers.protocols.json_tensors import type_name
from workers.protocols.json_text import parse_json
from workers.protocols.signature_names import (
    CLASSIFICATION,
    CLASSIFY_METHOD,
    REGRESS_METHOD,
    REGRESSION,
    check_signature_name,
    terms_named,
)

SERIALIZED = "inputs"  # the name under which TensorFlow Serving gives a model its examples


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """Examples as tensors by input name, and which outputs are their classes."""

    tensors: Tensors
    instances: int
    told: ClassOutputs

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        return Body(classes_text(outputs, self.told, contract.class_names), Dialect.CLASSIFY)


@dataclass(frozen=True, slots=True)
class RegressRequest:
    """Examples as tensors by input name, and which output is their value."""

    tensors: Tensors
    instances: int
    told: str

    def format(self, outputs: Tensors, contract: Contract) -> Body:  # noqa: ARG002 - a request's
        return Body(values_text(outputs[self.told]), Dialect.REGRESS)


def parse_classify(body: Body, contract: Contract) -> Request:
    """The request in a body of a caller of one version; raises InputInvalid."""
    document = document_of(body)
    terms = terms_named(document, contract, CLASSIFICATION, CLASSIFY_METHOD)
    told = class_outputs(terms.signature)
    if told is None:
        raise invalid(
            "Expected classification signature outputs to contain at least one of 'classes' (texts) and 'scores', or "
            f"nothing but a vector of scores for each instance, but this version answers {shown_outputs(terms)}"
        )
    found = ClassifyRequest(*examples_of(document, terms, "classify", CLASSIFICATION, CLASSIFY_METHOD), told)
    return by_terms(found, terms)


def parse_regress(body: Body, contract: Contract) -> Request:
    """The request in a body of a caller of one version; raises InputInvalid."""
    document = document_of(body)
    terms = terms_named(document, contract, REGRESSION, REGRESS_METHOD)
    told = value_output(terms.signature)
    if told is None:
        raise invalid(
            "Expected Regression Outputs Tensor shape to be either [batch_size] or [batch_size, 1], in 'outputs' or "
            f"the only output, but this version answers {shown_outputs(terms)}"
        )
    return by_terms(RegressRequest(*examples_of(document, terms, "regress", REGRESSION, REGRESS_METHOD), told), terms)


def shown_outputs(contract: Contract) -> str:
    return ", ".join(
        f"'{shown_name(spec.name)}' ({type_name(spec)} of rank {len(spec.shape)})"
        for spec in contract.signature.outputs
    )


def document_of(body: Body) -> dict[str, object]:
    document = parse_json(body.data)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {excerpt(document)} Is not object")
    return document


def examples_of(document: dict[str, object], contract: Contract, method: str, *names: str) -> tuple[Tensors, int]:
    """The tensors of a request's examples, and how many instances they are."""
    check_signature_name(document, contract.signature, *names, *contract.aliases)
    context = example_of(document[CONTEXT], CONTEXT) if CONTEXT in document else {}
    if EXAMPLES not in document:
        raise invalid(f"When method is {method}, key '{EXAMPLES}' is expected and was not found")
    listed = document[EXAMPLES]
    if not isinstance(listed, list):
        raise invalid(f"Expecting '{EXAMPLES}' value to be an list/array")
    if not listed:
        raise invalid(f"'{EXAMPLES}' value is an empty array")
    specs = contract.signature.inputs
    count = max(instance_count(spec, len(listed), contract.max_instances) for spec in specs)
    examples = [example_of(one, f"{EXAMPLES}[{number}]") for number, one in enumerate(listed)]
    if parses_examples(contract.signature, [context, *examples]):
        return {SERIALIZED: serialized(examples, context)}, count
    return features_of(examples, context, specs, contract), count


def example_of(value: object, place: str) -> Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)} at {place}")
    return value


def parses_examples(signature: Signature, examples: Sequence[Example]) -> bool:
    """Whether the model takes examples as TensorFlow Serving gives them: a text of it, and no feature of that name."""
    only = signature.inputs[0]
    takes = len(signature.inputs) == 1 and (only.name, only.dtype, only.shape) == (SERIALIZED, STRING, (None,))
    return takes and not any(SERIALIZED in example for example in examples)


def serialized(examples: Sequence[Example], context: Example) -> Tensor:
    """What the context says comes first in each, as there: of two features with one name the last counts."""
    shared = entry_bytes(context, CONTEXT)
    require_room(len(shared), len(examples))
    found = np.empty(len(examples), object)
    found[:] = [
        serialized_example(shared + entry_bytes(example, f"{EXAMPLES}[{number}]"))
        for number, example in enumerate(examples)
    ]
    return found
