"""Names of signatures in TensorFlow Serving's dialects: a version has one signature, which goes by several names.

Source: tensorflow_serving/g3doc/signature_defs.md and api_rest.md. Beside `serving_default` and what the upload calls
it, a signature has the name of the method that it answers, as in the documentation's own example, and where it
classifies or regresses the name that TensorFlow's estimators give such a one.
"""

from __future__ import annotations

from model_store.signature import DEFAULT_NAME, Signature
from workers.protocols.errors import excerpt, invalid

SIGNATURE_NAME = "signature_name"
CLASSIFICATION = "classification"
REGRESSION = "regression"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


def check_signature_name(document: dict[str, object], signature: Signature, *more: str) -> None:
    """Raises InputInvalid unless a request names the version's signature, or none; `more` are further names of it."""
    name = document.get(SIGNATURE_NAME, "")
    if not isinstance(name, str):
        raise invalid("JSON object not formatted correctly. 'signature_name' key must be a string value.")
    known = dict.fromkeys((DEFAULT_NAME, signature.name, *more))
    if name and name not in known:
        told = " or ".join(f"'{excerpt(one)[1:-1]}'" for one in known)
        raise invalid(f"Serving signature name: {excerpt(name)} not found in signature def; use {told}")
