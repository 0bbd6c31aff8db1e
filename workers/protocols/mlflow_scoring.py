"""MLflow's scoring protocol: what `POST /invocations` of an MLflow model server takes and answers.

Source: mlflow/pyfunc/scoring_server/__init__.py and mlflow/utils/proto_json_utils.py of MLflow 3. A body has exactly
one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, or is CSV; the answer is `{"predictions": …}`:
of a single output the nested lists, of several an object of them by name, as MLflow's flavors of TensorFlow and ONNX
answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from model_store.signature import Signature, Tensors
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract, common_count, instance_count
from workers.protocols.csv_table import read_csv
from workers.protocols.errors import excerpt, invalid, shown_name
from workers.protocols.json_tensors import Place, expectation, is_b64
from workers.protocols.json_text import parse_json
from workers.protocols.mlflow_params import check_params
from workers.protocols.mlflow_tables import missing_inputs, most_rows, records_table, split_table, tensors_of
from workers.protocols.mlflow_values import tensor_in
from workers.protocols.tensor_text import tensor_text
from workers.protocols.tensorflow_serving import number_reader

SPLIT, RECORDS, INSTANCES, INPUTS = "dataframe_split", "dataframe_records", "instances", "inputs"
FORMS = (SPLIT, RECORDS, INSTANCES, INPUTS)
NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """A request that fits the signature: tensors by input name, and the length of the free first dimension."""

    tensors: Tensors
    instances: int

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        specs = contract.signature.outputs
        texts = [tensor_text(outputs[spec.name], as_base64=False) for spec in specs]
        if len(specs) == 1:
            return Body(b'{"predictions":' + texts[0] + b"}", Dialect.MLFLOW)
        members = [orjson.dumps(spec.name) + b":" + text for spec, text in zip(specs, texts, strict=True)]
        return Body(b'{"predictions":{' + b",".join(members) + b"}}", Dialect.MLFLOW)


def parse(body: Body, contract: Contract) -> ScoringRequest:
    """The request in a body of JSON; raises InputInvalid."""
    signature, most = contract.signature, contract.max_instances
    reader = number_reader(signature)
    # The reader also takes the name of a signature, which is TensorFlow Serving's alone.
    found = None if reader is None or b"signature_name" in body.data else reader.read(body.data)
    if found is None:
        return parse_document(parse_json(body.data), signature, most)
    spec, tensor = signature.inputs[0], found[1]
    return ScoringRequest({spec.name: tensor}, instance_count(spec, len(tensor), most))


def parse_csv(body: Body, contract: Contract) -> ScoringRequest:
    """The request in a body of CSV; raises InputInvalid."""
    signature, most = contract.signature, contract.max_instances
    return ScoringRequest(*tensors_of(read_csv(body.data, most_rows(signature, most)), signature, most))


def parse_document(document: object, signature: Signature, max_instances: int) -> ScoringRequest:
    """The request in a parsed JSON value; raises InputInvalid."""
    if not isinstance(document, dict):
        raise invalid(f"The input must be a JSON dictionary with exactly one of the input fields {_forms()}.")
    if "signature_name" in document:
        raise invalid('"signature_name" parameter is currently not supported')
    check_params(document.get("params"), signature.parameters)
    given = [form for form in FORMS if form in document]
    if len(given) != 1:
        shown = ", ".join(excerpt(name) for name in list(document)[:NAMES_SHOWN])
        raise invalid(
            f"The input must be a JSON dictionary with exactly one of the input fields {_forms()}. Received dictionary "
            f"with input fields: [{shown}]"
        )
    form, value = given[0], document[given[0]]
    if form == SPLIT:
        return ScoringRequest(*tensors_of(split_table(value, SPLIT), signature, max_instances))
    if form == RECORDS:
        return ScoringRequest(*tensors_of(records_table(value, RECORDS), signature, max_instances))
    return _tensors(value, form, signature, max_instances)


def _tensors(value: object, form: str, signature: Signature, max_instances: int) -> ScoringRequest:
    """`instances` and `inputs`: the only tensor, an object of tensors by name, or a list of objects by name."""
    if form == INSTANCES and not isinstance(value, list):
        raise invalid("Expecting 'instances' value to be a list; send tensors by name as 'inputs'")
    if isinstance(value, dict) and not is_b64(value):
        return _by_name(value, form, signature, max_instances)
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and not is_b64(value[0]):
            table = records_table(value, form, gaps=False)
            return ScoringRequest(*tensors_of(table, signature, max_instances))
        if not value:
            raise invalid(f"No values in '{form}'")
    if len(signature.inputs) != 1:
        wanted = "; ".join(expectation(spec) for spec in signature.inputs)
        raise invalid(f"'{form}' is one tensor, but the model takes several by name: {wanted}")
    (spec,) = signature.inputs
    count = instance_count(spec, len(value), max_instances) if isinstance(value, list) else 1
    return ScoringRequest({spec.name: tensor_in(value, spec, Place(form))}, count)


def _by_name(value: dict[str, object], form: str, signature: Signature, max_instances: int) -> ScoringRequest:
    missing = [spec.name for spec in signature.inputs if spec.name not in value]
    if missing:
        raise missing_inputs(missing, signature)
    tensors: Tensors = {}
    for spec in signature.inputs:
        given = value[spec.name]
        if isinstance(given, list):
            instance_count(spec, len(given), max_instances)
        tensors[spec.name] = tensor_in(given, spec, Place(f"{form}.{shown_name(spec.name)}"))
    counts = {spec.name: len(tensors[spec.name]) for spec in signature.inputs if spec.batched}
    return ScoringRequest(tensors, common_count(counts))


def _forms() -> str:
    return "{" + ", ".join(f"'{form}'" for form in FORMS) + "}"
