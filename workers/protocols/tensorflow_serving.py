"""The predict dialect of TensorFlow Serving's REST interface: bodies to tensors, tensors to bodies.

Source: tensorflow_serving/g3doc/api_rest.md and util/json_tensor.cc, whose messages are kept where its clients may know
them. Beyond it, shapes are checked against the signature before any model runs, and text after the JSON value, repeated
keys, more than 64 levels and empty lists are refused. Keys that the protocol does not know are ignored, as there, but
for `top_k`: it asks for the best classes of each instance instead of all scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeGuard

import orjson

from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from workers.errors import PredictionFailed
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract, Request, by_terms, common_count, instance_count
from workers.protocols.errors import excerpt, invalid, shown_name
from workers.protocols.json_tensors import Place, expectation, is_b64, tensor_of
from workers.protocols.json_text import parse_json
from workers.protocols.number_text import NumberReader
from workers.protocols.signature_names import PREDICT_METHOD, check_signature_name, terms_named
from workers.protocols.tensor_text import tensor_text
from workers.protocols.top_classes import asked_count, require_scores, rows_of_classes

INSTANCES = "instances"
INPUTS = "inputs"
TOP_K = "top_k"


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A request that fits the signature: tensors by input name, in the signature's dtypes.

    `instances` is the length of the free first dimension, 1 where the signature has none; `row_form` says that the
    caller wrote `instances` and expects `predictions`, not `inputs` and `outputs`; `top_k` how many classes to tell.
    """

    tensors: Tensors
    instances: int
    row_form: bool
    top_k: int | None = None

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        if self.top_k is not None:
            text = format_classes(outputs, contract, self.row_form, self.top_k)
            return Body(text, Dialect.TENSORFLOW_SERVING)
        return Body(format_predict(outputs, contract.signature, self.row_form), Dialect.TENSORFLOW_SERVING)


def parse(body: Body, contract: Contract) -> Request:
    """The request in a body of a caller of one version; raises InputInvalid."""
    if not contract.further:
        return parse_predict(body.data, contract.signature, max_instances=contract.max_instances, contract=contract)
    quick = parse_numbers(body.data, contract.signature, contract.max_instances)
    if quick is not None:
        return quick
    document = parse_json(body.data)
    terms = terms_named(document, contract, PREDICT_METHOD)
    return by_terms(parse_document(document, terms.signature, terms.max_instances, terms), terms)


def parse_predict(
    body: bytes | memoryview, signature: Signature, *, max_instances: int, contract: Contract | None = None
) -> PredictRequest:
    """The request in `body`; raises InputInvalid, whose message names the place and what was expected there.

    Without a `contract`, files in the place of numbers are refused.
    """
    text = body if isinstance(body, bytes) else bytes(body)
    return parse_numbers(text, signature, max_instances) or parse_exactly(text, signature, max_instances, contract)


def parse_numbers(text: bytes, signature: Signature, max_instances: int) -> PredictRequest | None:
    """The same for nothing but numbers to the only input, which is most bodies; None for any other."""
    reader = number_reader(signature)
    found = None if reader is None else reader.read(text)
    if found is None:
        return None
    key, tensor = found
    spec = signature.inputs[0]
    return PredictRequest(
        {spec.name: tensor}, instance_count(spec, len(tensor), max_instances), row_form=key == INSTANCES
    )


number_reader = lru_cache(maxsize=1024)(lambda signature: NumberReader.of(signature.inputs))


def parse_exactly(
    body: bytes, signature: Signature, max_instances: int, contract: Contract | None = None
) -> PredictRequest:
    """The same for any body, at any speed; what `NumberReader` accepts gives the same tensors here."""
    return parse_document(parse_json(body), signature, max_instances, contract)


def parse_document(
    document: object, signature: Signature, max_instances: int, contract: Contract | None = None
) -> PredictRequest:
    """The same for JSON that was read already."""
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {excerpt(document)} Is not object")
    check_signature_name(document, signature, PREDICT_METHOD, *(() if contract is None else contract.aliases))
    if INSTANCES in document and INPUTS in document:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if INSTANCES in document:
        request = from_rows(document[INSTANCES], signature, max_instances, contract)
    elif INPUTS in document:
        request = from_columns(document[INPUTS], signature, max_instances, contract)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    return request if TOP_K not in document else replace(request, top_k=asked_top(document[TOP_K], signature))


def asked_top(value: object, signature: Signature) -> int:
    """How many classes to tell of every output, all of which must have them."""
    for spec in signature.outputs:
        require_scores(spec, TOP_K)
    return asked_count(value, TOP_K)


def from_rows(
    listed: object, signature: Signature, max_instances: int, contract: Contract | None = None
) -> PredictRequest:
    """`instances`: a list of values, or of objects with a value for each input."""
    if not isinstance(listed, list):
        raise invalid("Expecting 'instances' value to be an list/array")
    if not listed:
        raise invalid("No values in 'instances' array")
    count = max(instance_count(spec, len(listed), max_instances) for spec in signature.inputs)
    if is_member_object(listed[0]):
        columns = columns_of(listed, signature)
        tensors = {
            spec.name: tensor_of(columns[spec.name], spec, Place(INSTANCES, spec.name), contract)
            for spec in signature.inputs
        }
        return PredictRequest(tensors, count, row_form=True)
    if len(signature.inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            f"tensorinfo_map: {names_of(signature)}"
        )
    number = next((number for number, row in enumerate(listed) if is_member_object(row)), None)
    if number is not None:
        raise invalid(f"Expecting value/list but got object at item {number} of input list")
    spec = signature.inputs[0]
    return PredictRequest({spec.name: tensor_of(listed, spec, Place(INSTANCES), contract)}, count, row_form=True)


def is_member_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether a row names its inputs; `{"b64": …}` is a value."""
    return isinstance(value, dict) and not is_b64(value)


def columns_of(listed: list[object], signature: Signature) -> dict[str, list[object]]:
    """Rows of objects, turned: each input's values in the order of the rows."""
    columns: dict[str, list[object]] = {spec.name: [] for spec in signature.inputs}
    for number, row in enumerate(listed):
        if not is_member_object(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        if row.keys() != columns.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. keys must be equal to: {names_of(signature)}"
            )
        for name, column in columns.items():
            column.append(row[name])
    return columns


def names_of(signature: Signature) -> str:
    return ",".join(shown_name(spec.name) for spec in signature.inputs)


def from_columns(
    columns: object, signature: Signature, max_instances: int, contract: Contract | None = None
) -> PredictRequest:
    """`inputs`: the one tensor, or an object with a tensor for each input."""
    if is_member_object(columns):
        tensors = {spec.name: named_tensor(columns, spec, max_instances, contract) for spec in signature.inputs}
    elif len(signature.inputs) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            f"tensorinfo_map: {names_of(signature)}"
        )
    else:
        spec = signature.inputs[0]
        tensors = {spec.name: column_tensor(columns, spec, Place(INPUTS), max_instances, contract)}
    counts = {spec.name: len(tensors[spec.name]) for spec in signature.inputs if spec.batched}
    return PredictRequest(tensors, common_count(counts), row_form=False)


def named_tensor(columns: dict[str, object], spec: TensorSpec, max_instances: int, contract: Contract | None) -> Tensor:
    if spec.name not in columns:
        raise invalid(f"Missing named input: {shown_name(spec.name)} in 'inputs' object; {expectation(spec)}")
    place = Place(f"{INPUTS}.{shown_name(spec.name)}")
    return column_tensor(columns[spec.name], spec, place, max_instances, contract)


def column_tensor(
    value: object, spec: TensorSpec, place: Place, max_instances: int, contract: Contract | None
) -> Tensor:
    if isinstance(value, list):
        instance_count(spec, len(value), max_instances)
    return tensor_of(value, spec, place, contract)


def format_predict(outputs: Tensors, signature: Signature, row_form: bool) -> bytes:
    """The body of the 200 answer: `{"predictions": …}` for rows, `{"outputs": …}` for columns.

    The only output's name is dropped. An output whose name ends in `_bytes` is written as base64. Raises
    PredictionFailed if several outputs cannot be told apart by rows.
    """
    texts = signature.outputs
    if len(texts) == 1:
        text = output_text(outputs[texts[0].name], texts[0])
    elif row_form:
        text = rows_text(outputs, texts)
    else:
        members = [orjson.dumps(spec.name) + b":" + output_text(outputs[spec.name], spec) for spec in texts]
        text = b"{" + b",".join(members) + b"}"
    return (b'{"predictions":' if row_form else b'{"outputs":') + text + b"}"


def format_classes(outputs: Tensors, contract: Contract, row_form: bool, top_k: int) -> bytes:
    """The body of the 200 answer with a list of the best classes for each instance in place of its scores."""
    specs = contract.signature.outputs
    columns = [rows_of_classes(outputs[spec.name], top_k, contract.class_names) for spec in specs]
    names = [orjson.dumps(spec.name) + b":" for spec in specs]
    if len(specs) == 1:
        text = b"[" + b",".join(columns[0]) + b"]"
    elif row_form:
        objects = [b",".join(map(bytes.__add__, names, row)) for row in zip(*columns, strict=True)]
        text = b"[{" + b"},{".join(objects) + b"}]"
    else:
        members = [name + b"[" + b",".join(column) + b"]" for name, column in zip(names, columns, strict=True)]
        text = b"{" + b",".join(members) + b"}"
    return (b'{"predictions":' if row_form else b'{"outputs":') + text + b"}"


def output_text(tensor: Tensor, spec: TensorSpec) -> bytes:
    return tensor_text(tensor, as_base64=spec.name.endswith("_bytes"))


def rows_text(outputs: Tensors, specs: tuple[TensorSpec, ...]) -> bytes:
    """One object per instance; all outputs need the same first dimension for that."""
    if len({outputs[spec.name].shape[:1] for spec in specs}) != 1 or not outputs[specs[0].name].ndim:
        raise PredictionFailed("the outputs have no common first dimension: ask with 'inputs' instead of 'instances'")
    names = [orjson.dumps(spec.name) + b":" for spec in specs]
    # Indexed with an ellipsis, a vector gives arrays without dimensions; iterated over, it would give bare scalars.
    objects = [
        b",".join(
            name + output_text(outputs[spec.name][row, ...], spec) for name, spec in zip(names, specs, strict=True)
        )
        for row in range(len(outputs[specs[0].name]))
    ]
    return b"[{" + b"},{".join(objects) + b"}]"


def rows(outputs: Tensors, start: int, stop: int) -> Tensors:
    """One request's part of a batch, as views: nothing is copied until `format_predict` writes it."""
    return {name: tensor[start:stop] for name, tensor in outputs.items()}
