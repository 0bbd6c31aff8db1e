"""The dialects by number: how each reads a request and words a refusal; a request itself knows how it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workers.protocols import examples, explain, files, mlflow_scoring, open_inference, tensorflow_serving
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract, Request
from workers.protocols.errors import error_text
from workers.protocols.mlflow_errors import error_body


@dataclass(frozen=True, slots=True)
class Grammar:
    """One dialect. `parse` raises InputInvalid, whose message names the place and what was expected there.

    `format_error` takes the message and the status, by which one of the dialects has a code.
    """

    parse: Callable[[Body, Contract], Request]
    format_error: Callable[[str, int], bytes]


# Numbers of the wire are looked up as they are: each equals its `Dialect`.
GRAMMARS: Mapping[int, Grammar] = {
    Dialect.TENSORFLOW_SERVING: Grammar(tensorflow_serving.parse, error_text),
    Dialect.OPEN_INFERENCE: Grammar(open_inference.parse, error_text),
    Dialect.MLFLOW: Grammar(mlflow_scoring.parse, error_body),
    Dialect.MLFLOW_CSV: Grammar(mlflow_scoring.parse_csv, error_body),
    Dialect.CLASSIFY: Grammar(examples.parse_classify, error_text),
    Dialect.REGRESS: Grammar(examples.parse_regress, error_text),
    Dialect.FILES: Grammar(files.parse, error_text),
    Dialect.EXPLAIN: Grammar(explain.parse, error_text),
}
