"""`sluice jobs submit`, and the options that every submit of the command line has."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sluice.answers import Refused
from sluice.completing import ModelArgument
from sluice.connection import connected
from sluice.moments import read_moment
from sluice.output_options import AsJson
from sluice.predict_commands import File, Label, Version, document_of, explaining_404, require_one

if TYPE_CHECKING:
    from sluice.client import Client, SubmitOptions

Priority = Literal["interactive", "bulk"]


def read_deadline(text: str) -> float | datetime:
    """Seconds from now, or a moment. Raises BadParameter."""
    try:
        return float(text)
    except ValueError:
        return read_moment(text)


Deadline = Annotated[
    object | None,
    typer.Option(
        "--deadline",
        help="Later it is not worth running: seconds from now, or a moment such as 2099-12-31T23:00:00Z.",
        parser=read_deadline,
        metavar="time",
    ),
]
MaxAttempts = Annotated[int | None, typer.Option("--max-attempts", min=1, max=10, help="How often it may be tried.")]
Webhook = Annotated[str | None, typer.Option("--webhook", help="An https address to tell of its end.")]
Key = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="The same key with the same request is the same job; otherwise a new one."),
]


@connected(admin=False)
def submit(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    model: ModelArgument,
    file: File,
    version: Version = None,
    label: Label = None,
    priority: Annotated[Priority | None, typer.Option(help="Whose turn it takes; bulk by default.")] = None,
    deadline: Deadline = None,
    max_attempts: MaxAttempts = None,
    webhook: Webhook = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Submit a prediction as a job and print its id; `sluice jobs wait` waits for it.

    Examples:

      sluice jobs submit mnist sluice-data/digit.json --priority interactive --deadline 60

      echo '{"instances": [[1.0, 2.0]]}' | sluice jobs submit linear - --idempotency-key order-7
    """
    require_one(version, label)
    options = options_of(deadline=deadline, max_attempts=max_attempts, webhook=webhook, key=key)
    if priority is not None:
        options["priority"] = priority
    request = document_of(file)
    try:
        job = sluice.submit_body(model, request, version=version, label=label, **options)
    except Refused as error:
        raise explaining_404(error, model) from error
    typer.echo(json.dumps(job.document) if as_json else job.id)


def options_of(
    *, deadline: object | None, max_attempts: int | None, webhook: str | None, key: str | None
) -> SubmitOptions:
    """The options that were given, as the client takes them; `deadline` is what `read_deadline` made of it."""
    options: SubmitOptions = {}
    if isinstance(deadline, float | datetime):
        options["deadline"] = deadline
    if max_attempts is not None:
        options["max_attempts"] = max_attempts
    if webhook is not None:
        options["webhook"] = webhook
    if key is not None:
        options["idempotency_key"] = key
    return options
