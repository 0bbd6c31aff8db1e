"""A version's own OpenAPI document: its paths under every protocol, its shapes and classes, and bodies that work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from auth.scopes import Scope
from gateway.dry_run_description import DRY_RUN_SCHEMAS, with_dry_runs
from gateway.dry_runs import values_of
from gateway.file_description import files_of
from gateway.infer_description import BINARY
from gateway.interface_schemas import Interface, schemas
from gateway.openapi import ERROR_SCHEMAS, TOKEN_SCHEME, add_error_shape
from gateway.prediction_description import (
    SCHEMAS,
    accepted,
    failure,
    header,
    reference,
    refusals,
)
from gateway.tensor_schemas import described
from model_store.further_signatures import NO_FURTHER, FurtherSignatures
from model_store.model_settings import Metadata
from model_store.signature import Signature, Tensors
from workers.protocols.body import Dialect
from workers.protocols.example_bodies import blank, example_of
from workers.protocols.example_results import class_outputs, value_output

Json = dict[str, Any]

# Each protocol's path has an example of its own up to this length; longer ones, of zeros, stand at `:predict` alone.
EXAMPLE_CHARACTERS = 64 * 1024
LONGEST_CHARACTERS = 1024**2
# Zeros take a character and a comma at least.
MOST_VALUES = LONGEST_CHARACTERS // 2


@dataclass(frozen=True, slots=True)
class Facts:
    """What the document is made of; `samples` are inputs that the version is known to take, if there are any.

    `further` is what callers choose by name; all examples are of the default.

    `target` is what follows the model's name in paths: nothing, `/versions/3` or `/labels/stable`.
    """

    model: str
    version: int
    target: str
    signature: Signature
    most_instances: int
    metadata: Metadata
    samples: Tensors | None = None
    further: FurtherSignatures = NO_FURTHER


@dataclass(frozen=True, slots=True)
class Form:
    """One way to ask: its path, dialect, schemas, and what it is."""

    path: str
    dialect: Dialect
    request: str
    answer: str
    summary: str
    submits: bool = False
    right: Scope = Scope.PREDICT


def document(facts: Facts) -> Json:
    """The complete OpenAPI 3.1 document."""
    interface = Interface(facts.signature, facts.most_instances, facts.metadata.class_names or (), facts.further)
    inputs = facts.samples or (blank(facts.signature) if values_of(facts.signature) <= MOST_VALUES else None)
    kept = {name: schema for name, schema in SCHEMAS.items() if name == "JobAccepted"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": facts.model,
            "version": str(facts.version),
            "description": description(facts),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": facts.model}],
        "paths": with_dry_runs({form.path: {"post": operation(form, facts, inputs)} for form in forms(facts)}),
        "components": {
            "schemas": {"Error": ERROR_SCHEMAS["Error"], **kept, **DRY_RUN_SCHEMAS, **schemas(interface)},
            "securitySchemes": {"token": TOKEN_SCHEME},
        },
    }


def description(facts: Facts) -> str:
    """What people said of the version, and what it takes and gives."""
    lines = [facts.metadata.description] if facts.metadata.description else []
    lines += [f"* takes `{described(spec)}`" for spec in facts.signature.inputs]
    lines += [f"* gives `{described(spec)}`" for spec in facts.signature.outputs]
    for further in facts.further.listed:
        one = further.signature
        takes, gives = ", ".join(map(described, one.inputs)), ", ".join(map(described, one.outputs))
        lines.append(f"* by the `signature_name` `{one.name}` takes `{takes}`, gives `{gives}`")
    if facts.metadata.class_names:
        names = ", ".join(facts.metadata.class_names[:100])
        rest = len(facts.metadata.class_names) - 100
        lines.append(f"* classes: {names}{f' and {rest} more' if rest > 0 else ''}")
    if facts.metadata.input_specification:
        lines.append(f"* made of: `{facts.metadata.input_specification}`")
    return "\n".join(lines)


def forms(facts: Facts) -> list[Form]:
    """All ways in which this version can be asked."""
    base, signature = f"/v1/models/{facts.model}{facts.target}", facts.signature
    every = (signature, *(one.signature for one in facts.further.listed))
    serving, predicted = Dialect.TENSORFLOW_SERVING, ("PredictRequest", "PredictAnswer")
    found = [
        Form(f"{base}:predict", serving, *predicted, "Predict (TensorFlow Serving)"),
        Form(f"{base}:submit", serving, *predicted, "Submit a job", submits=True),
    ]
    if signature.batched and all(spec.batched for spec in signature.inputs):
        if signature.outputs[0].batched and signature.outputs[0].numpy_dtype().kind in "fiu":
            request, answer = "ExplainRequest", "Explanations"
            summary = "Explain a prediction (KServe)"
            found.append(
                Form(f"{base}:explain", Dialect.EXPLAIN, request, answer, summary, submits=True, right=Scope.EXPLAIN)
            )
        if any(class_outputs(one) is not None for one in every):
            found.append(
                Form(f"{base}:classify", Dialect.CLASSIFY, "ExamplesRequest", "ClassifyAnswer", "Classify examples")
            )
        if any(value_output(one) is not None for one in every):
            found.append(
                Form(f"{base}:regress", Dialect.REGRESS, "ExamplesRequest", "RegressAnswer", "Regress examples")
            )
    place = f"{facts.model}{facts.target}"
    infer, invoke = ("InferRequest", "InferAnswer"), ("ScoringRequest", "ScoringAnswer")
    return [
        *found,
        Form(f"/v2/models/{place}/infer", Dialect.OPEN_INFERENCE, *infer, "Infer (Open Inference Protocol)"),
        Form(f"/models/{place}/invocations", Dialect.MLFLOW, *invoke, "Score (MLflow)"),
    ]


def operation(form: Form, facts: Facts, inputs: Tensors | None) -> Json:
    """The operation of one of them, with a body that works unless that would be too long.

    Headers that ask for jobs are told of once, in the whole interface's document.
    """
    content: Json = {"schema": reference(form.request)}
    example = _example(form, facts, inputs)
    if example is not None:
        content["examples"] = {"instance": {"summary": "one instance", "value": example}}
    answers: Json = {"application/json": {"schema": reference(form.answer)}}
    kinds: Json = {"application/json": content}
    if form.dialect is Dialect.TENSORFLOW_SERVING:
        kinds |= files_of(facts.signature, facts.metadata.input_specification)
    if form.dialect is Dialect.OPEN_INFERENCE:
        kinds["application/octet-stream"] = answers["application/octet-stream"] = BINARY
    return {
        "tags": [facts.model],
        "summary": form.summary,
        "operationId": form.path.rpartition("/")[2].rpartition(":")[2],
        "parameters": [],
        "requestBody": {"required": True, "content": kinds},
        "responses": responses(form, answers),
        "security": [{"token": [str(form.right)]}],
    }


def responses(form: Form, answers: Json) -> dict[str, Json]:
    """What may be answered, refusals in the shape of the protocol."""
    version = {"Sluice-Model-Version": header("The version that answered.")}
    found = refusals() | {
        "200": {"description": "The answer.", "headers": version, "content": answers},
        "202": accepted("It is a job."),
        "401": failure("There is no valid access token."),
        "403": failure(f"The token does not have the scope {form.right}."),
        "500": failure("The model failed on it."),
        "503": failure("The version is not ready, or the queue or the database is away.", retry=True),
    }
    if not form.submits:
        found["504"] = failure("It took longer than the synchronous limit; nobody works on it any more.")
    for status, response in found.items():
        if int(status) >= 400:
            add_error_shape(form.path, response)
    return dict(sorted(found.items()))


def _example(form: Form, facts: Facts, inputs: Tensors | None) -> object | None:
    most = LONGEST_CHARACTERS if form.path.endswith(":predict") else EXAMPLE_CHARACTERS
    # A value takes a character and a comma at least: what is longer for certain is not even made.
    if inputs is None or 2 * sum(tensor.size for tensor in inputs.values()) > most:
        return None
    example = example_of(form.dialect, inputs, facts.signature)
    return None if example is None or len(json.dumps(example)) > most else example
