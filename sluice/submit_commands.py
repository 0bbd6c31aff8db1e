"""`sluice jobs submit`, and the options that every submit of the command line has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import typer

from sluice.client import Refused, Sluice, SubmitOptions
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Body, Model, not_served, read_request
from sluice.moments import read_moment

Priority = Literal["interactive", "bulk"]


def read_deadline(text: str) -> float | datetime:
    """Seconds from now, or a moment. Raises BadParameter."""
    try:
        return float(text)
    except ValueError:
        return read_moment(text)


Version = Annotated[int | None, typer.Option(min=1, help="This version instead of the newest.")]
Label = Annotated[str | None, typer.Option(help="The version that this label points to.")]
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
    sluice: Sluice,
    model: Model,
    body: Body,
    version: Version = None,
    label: Label = None,
    priority: Annotated[Priority | None, typer.Option(help="Whose turn it takes; bulk by default.")] = None,
    deadline: Deadline = None,
    max_attempts: MaxAttempts = None,
    webhook: Webhook = None,
    key: Key = None,
) -> None:
    """Submit a prediction as a job and print its id; `sluice jobs wait` waits for it.

    Examples:

      sluice jobs submit mnist --json sluice-data/digit.json --priority interactive --deadline 60

      echo '{"instances": [[1.0, 2.0]]}' | sluice jobs submit linear --json - --idempotency-key order-7
    """
    require_one(version, label)
    options = options_of(deadline=deadline, max_attempts=max_attempts, webhook=webhook, key=key)
    if priority is not None:
        options["priority"] = priority
    request = read_request(body)
    try:
        job = sluice.submit_body(model, request, version=version, label=label, **options)
    except Refused as error:
        if error.status != 404:
            raise
        raise not_served(error, model) from error
    typer.echo(job.id)


def require_one(version: int | None, label: str | None) -> None:
    """Raises CommandFailed where both are given."""
    if version is not None and label is not None:
        raise CommandFailed("give --version or --label, not both")


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
