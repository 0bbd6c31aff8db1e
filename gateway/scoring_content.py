"""Content types of MLflow's scoring: which dialect a body is in, and the words in which MLflow's server refuses others.

Source: mlflow/pyfunc/scoring_server/__init__.py. Its third type, Parquet, is for files here (docs/batches.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.body_types import ContentTypeUnsupported, shown_type
from workers.protocols.body import Dialect

JSON, CSV = "application/json", "text/csv"
DIALECTS = {JSON: Dialect.MLFLOW, CSV: Dialect.MLFLOW_CSV}


def scoring_dialect(headers: Sequence[tuple[bytes, bytes]]) -> Dialect:
    """By the first Content-Type; JSON where there is none. Raises ContentTypeUnsupported."""
    sent = next((value for name, value in headers if name == b"content-type"), None)
    if sent is None or sent == b"application/json":
        return Dialect.MLFLOW
    text = sent.decode("latin-1")
    kind, *pairs = (part.strip() for part in text.split(";"))
    terms = {name.strip().lower(): value.strip(" \"'").lower() for name, _, value in (p.partition("=") for p in pairs)}
    if terms.pop("charset", "utf-8") not in ("utf-8", "utf8"):
        raise ContentTypeUnsupported("The scoring server only supports UTF-8")
    # A semicolon at the end says nothing.
    terms.pop("", None)
    if terms:
        raise ContentTypeUnsupported(f"Unrecognized content type parameters: {shown_type(', '.join(terms))}.")
    found = DIALECTS.get(kind.lower())
    if found is None:
        types = ", ".join(f"'{known}'" for known in (CSV, JSON))
        raise ContentTypeUnsupported(
            f"This predictor only supports the following content types: Types: [{types}]. Got '{shown_type(text)}'."
        )
    return found
