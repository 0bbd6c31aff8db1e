"""Names of signatures in TensorFlow Serving's dialects: a version's default goes by several, a further one by its own.

Source: tensorflow_serving/g3doc/signature_defs.md and api_rest.md. Beside `serving_default` and what the upload calls
it, the default has the name of the method that it answers, as in the documentation's own example, and where it
classifies or regresses the name that TensorFlow's estimators give such a one. A further signature's own name
goes first.
"""

from __future__ import annotations

from collections.abc import Iterable

from model_store.signature import DEFAULT_NAME, Signature
from workers.errors import InputInvalid
from workers.protocols.contract import Contract
from workers.protocols.errors import excerpt, invalid

SIGNATURE_NAME = "signature_name"
CLASSIFICATION = "classification"
REGRESSION = "regression"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


def terms_named(document: object, contract: Contract, *more: str) -> Contract:
    """The terms of the signature that a request names, the version's own where it names none.

    `more` are further names of the default. Raises InputInvalid.
    """
    if not contract.further or not isinstance(document, dict):
        return contract
    name = name_in(document)
    if name in contract.further:
        return contract.further[name]
    known = default_names(contract.signature, *more, *contract.aliases)
    if name and name not in known:
        raise not_found(name, (*known, *contract.further))
    return contract


def check_signature_name(document: dict[str, object], signature: Signature, *more: str) -> None:
    """Raises InputInvalid unless a request names this signature, or none; `more` are further names of it."""
    name = name_in(document)
    known = default_names(signature, *more)
    if name and name not in known:
        raise not_found(name, known)


def name_in(document: dict[str, object]) -> str:
    """The name in a request, empty where there is none; raises InputInvalid."""
    name = document.get(SIGNATURE_NAME, "")
    if not isinstance(name, str):
        raise invalid("JSON object not formatted correctly. 'signature_name' key must be a string value.")
    return name


def default_names(signature: Signature, *more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((DEFAULT_NAME, signature.name, *more)))


def not_found(name: str, known: Iterable[str]) -> InputInvalid:
    told = " or ".join(f"'{excerpt(one)[1:-1]}'" for one in known)
    return invalid(f"Serving signature name: {excerpt(name)} not found in signature def; use {told}")
