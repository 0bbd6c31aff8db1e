"""What a client asks of its gateway, apart from how it is carried: each call as the steps that it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

import httpx

from sluice.answers import Forbidden, InputInvalid, Json, NotFound, SluiceFailed, job_failure, read_answer
from sluice.exchange import JSON_TYPE, Asked, Progress, Steps, encode_json
from sluice.model_uploads import send_file
from sluice.patience import AWAY, persistently, repeated
from sluice.submit_options import FORMATS, SubmitOptions, option_headers
from sluice.targets import Target, Verb

if TYPE_CHECKING:
    from sluice.described_model import ModelDescription
    from sluice.explanations import Explanation
    from sluice.given_inputs import Given
    from sluice.predicted import Answer

# An array, or a dict of arrays by output: who asks knows which.
Prediction: TypeAlias = Any

# What a name without a version means may change at any time; a version never does.
DESCRIBED_SECONDS = 60.0
MOST_DESCRIBED = 256
NOTHING: Mapping[str, str] = MappingProxyType({})
DRY = MappingProxyType({"validate_only": "true"})
ACCEPTED = 202
ROWS_TYPE = "application/jsonl"
WAIT_SECONDS = 30
# Who waits for a job has waited already: a gateway that is started anew is worth a minute more.
AWAY_SECONDS = 60.0


def job_path(job_id: str) -> str:
    """The address of a job."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


class Calls:
    """Knows how patient the client is, and what it has learned of models; several threads may use it."""

    # NumPy is imported by what needs it: many a command line asks nothing of a model.

    def __init__(self, patience_seconds: float, timeout_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        # A question is answered before its sender gives it up.
        self._wait_seconds = min(WAIT_SECONDS, timeout_seconds / 2)
        self._described: dict[Target, tuple[ModelDescription | None, float]] = {}

    def predict(self, target: Target, given: Given, outputs: str | Sequence[str] | None = None) -> Steps[Prediction]:
        """The outputs for a batch of instances. Raises Refused, Unreachable, FileUnknown, OSError."""
        from sluice.predicted import chosen

        wanted = [outputs] if isinstance(outputs, str) else outputs
        answer = yield from self.answer(target, given, wanted)
        return chosen((yield from self.read(target.model, answer)), outputs)

    def answer(self, target: Target, given: Given, outputs: Sequence[str] | None) -> Steps[Answer]:
        """As `predict`, what the gateway answered."""
        from sluice.predicted import answer_of

        return answer_of((yield from self._sent(target, given, "predict", outputs)))

    def read(self, model: str, answer: Answer) -> Steps[dict[str, Any]]:
        """The outputs by name in a prediction's answer. Raises Refused, Unreachable."""
        from sluice.predicted import read_outputs

        description = None
        if answer.head_bytes is None and answer.version is not None:
            # JSON has numbers of one kind only: of which each output is, its version says.
            description = yield from self.described(Target(model, answer.version))
        return read_outputs(answer, description)

    def job(self, job_id: str) -> Steps[Json]:
        """The document of a job as it is now. Raises NotFound, Refused, Unreachable."""
        return read_answer((yield from self.persistently(job_path(job_id))))

    def submit(self, target: Target, given: Given, options: SubmitOptions) -> Steps[Json]:
        """The document of a new job. Raises as `predict`."""
        headers = {"Prefer": "respond-async", **option_headers(options)}
        return read_answer((yield from self._sent(target, given, "submit", None, headers)))

    def submit_body(self, target: Target, body: Json, options: SubmitOptions) -> Steps[Json]:
        """The document of a new job for a whole request in JSON. Raises Refused, Unreachable."""
        headers = {**JSON_TYPE, **option_headers(options)}
        asked = Asked("POST", f"{target.path}:submit", encode_json(body), headers)
        return read_answer((yield from persistently(asked, self.patience_seconds)))

    def submit_file(
        self, target: Target, file: Path, format: str | None, progress: Progress | None, options: SubmitOptions
    ) -> Steps[Json]:
        """The document of a job for a file of many rows. Raises Refused, Unreachable, OSError."""
        known = format or FORMATS.get(file.suffix.lower())
        query = {} if known is None else {"format": known}
        asked = Asked("POST", f"{target.path}:batch", None, option_headers(options), query)
        return repeated(lambda: send_file(asked, file, progress), self.patience_seconds)

    def result(self, document: Json, outputs: str | Sequence[str] | None) -> Steps[Prediction]:
        """The outputs of a job that has ended. Raises JobFailed, Refused, Unreachable."""
        from sluice.predicted import answer_of, chosen

        response = yield from self._bare_result(document)
        if response.headers.get("Content-Type") == ROWS_TYPE:
            raise SluiceFailed(f"job {document['id']} is of a file of rows: its answers are its `lines`")
        return chosen((yield from self.read(document["model"], answer_of(response))), outputs)

    def waited(self, job_id: str, seconds: float | None, patience_seconds: float | None) -> Steps[Json]:
        """The job's document once it has ended, or as it is after so many seconds; None is any number of them.

        Raises Refused, and Unreachable where no gateway answered for the patience, also beyond `seconds`.
        """
        patience = AWAY_SECONDS if patience_seconds is None else patience_seconds
        until = time.monotonic() + (float("inf") if seconds is None else seconds)
        while True:
            left = until - time.monotonic()
            # Less than a second is waited for as well: the gateway is not to be asked again and again meanwhile.
            asked = Asked("GET", job_path(job_id), query={"wait": f"{max(min(left, self._wait_seconds), 0):.3f}"})
            document = read_answer((yield from persistently(asked, patience, AWAY)))
            if document.get("finished_at") is not None or left <= 0:
                return document

    def explain(self, target: Target, given: Given, options: Mapping[str, object] | None) -> Steps[list[Explanation]]:
        """An explanation for each instance: a job, which is waited for. Raises JobFailed, Refused, Unreachable."""
        from sluice.explanations import explain_document, read_explanations, texts_of

        # It is waited for as a job from the beginning: it may take longer than any one answer may.
        headers = {**JSON_TYPE, "Prefer": "respond-async", **option_headers({})}
        description = None if texts_of(given) is None else (yield from self.described(target))
        body = encode_json(explain_document(given, options, description))
        asked = Asked("POST", f"{target.path}:explain", body, headers)
        response = yield from persistently(asked, self.patience_seconds)
        document = read_answer(response)
        if response.status_code == ACCEPTED:
            document = yield from self.waited(document["id"], None, None)
            document = read_answer((yield from self._bare_result(document)))
        return read_explanations(document)

    def check(self, target: Target, given: Given) -> Steps[Json]:
        """What a dry run of a prediction answers: nothing is run. Raises as `predict`."""
        return read_answer((yield from self._sent(target, given, "predict", query=DRY)))

    def described(self, target: Target) -> Steps[ModelDescription | None]:
        """What a model takes and gives, remembered for a while; None for who may not see it."""
        known, until = self._described.get(target, (None, float("-inf")))
        if time.monotonic() < until:
            return known
        try:
            found = yield from self.metadata(target)
        except (Forbidden, NotFound, InputInvalid):
            found = None
        if len(self._described) >= MOST_DESCRIBED:
            self._described.clear()
        lasts = float("inf") if target.version is not None and found is not None else DESCRIBED_SECONDS
        self._described[target] = (found, time.monotonic() + lasts)
        return found

    def metadata(self, target: Target) -> Steps[ModelDescription]:
        """What a model takes and gives, asked for now. Raises Refused, Unreachable."""
        from sluice.described_model import read_description

        return read_description(read_answer((yield from self.persistently(f"{target.path}/metadata"))))

    def models(self) -> Steps[list[str]]:
        """The names of the models that the client may use. Raises Refused, Unreachable."""
        answer = read_answer((yield from self.persistently("/v1/models")))
        found: list[str] = answer["models"]
        return found

    def persistently(self, path: str, **query: str | int) -> Steps[httpx.Response]:
        """The good answer to a GET, asked for again where it fails with something that passes."""
        return persistently(Asked("GET", path, query=query), self.patience_seconds)

    def _bare_result(self, document: Json) -> Steps[httpx.Response]:
        if document["state"] != "succeeded":
            raise job_failure(document)
        return (yield from self.persistently(f"{job_path(document['id'])}/result"))

    def _sent(
        self,
        target: Target,
        given: Given,
        verb: Verb,
        outputs: Sequence[str] | None = None,
        headers: Mapping[str, str] = NOTHING,
        query: Mapping[str, str] = NOTHING,
    ) -> Steps[httpx.Response]:
        from sluice.given_inputs import is_tensor, request_of

        # In binary form, the inputs' names must be known.
        binary = is_tensor(given)
        for attempt in range(2):
            remembered = target in self._described
            description = (yield from self.described(target)) if binary else None
            asked = request_of(target, given, description, outputs, verb)
            asked = replace(asked, headers={**asked.headers, **headers}, query=query)
            try:
                return (yield from persistently(asked, self.patience_seconds))
            except (InputInvalid, NotFound):
                if not binary:
                    raise
                # The name may mean another version by now, with other inputs; or a grant may have come.
                self._described.pop(target, None)
                if attempt or not remembered or (yield from self.described(target)) == description:
                    raise
        raise AssertionError("a loop that always ends by itself")
