"""`sluice predict` and `sluice explain`: ask a model, with numbers or with files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from sluice.answers import Json, Refused
from sluice.completing import ModelArgument
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_files import require_place, write_lines
from sluice.output_options import AsJson
from sluice.prediction_tables import classes, explained, lines
from sluice.request_files import Given, read_given
from sluice.shown_texts import say
from sluice.tables import print_table
from sluice.targets import model_path

if TYPE_CHECKING:
    from sluice.client import Client

File = Annotated[
    str,
    typer.Argument(
        metavar="file",
        help=(
            'JSON ({"instances": …}, {"inputs": …} or a list of instances), .npy, .npz, an image, .wav, .flac or .txt; '
            "- is standard input."
        ),
    ),
]
Version = Annotated[int | None, typer.Option(min=1, help="This version instead of the newest.")]
Label = Annotated[str | None, typer.Option(help="The version that this label points to.")]
ContentType = Annotated[
    str | None, typer.Option("--content-type", help="What FILE is, where its name does not say so: image/png, …")
]


@connected(admin=False)
def predict(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    model: ModelArgument,
    file: File,
    version: Version = None,
    label: Label = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many best classes of each instance.")] = None,
    content_type: ContentType = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model, and print its predictions: a line for each instance, or the whole answer with --json.

    An image, a recording or a text is one instance; of an array the first axis
    counts them; an archive has an array for each input.

    Examples:

      sluice predict mnist sluice-data/digit.json --top 3

      sluice predict mnist seven.png --json

      echo '{"instances": [[1.0, 2.0]]}' | sluice predict linear -
    """
    require_one(version, label)
    given = read_given(file, content_type)
    path = f"{model_path(model, version=version, label=label)}:predict"
    try:
        if given.is_file and top is None:
            answer = sluice.post_file(path, given.content, given.content_type)
        else:
            document = _document(sluice, given, model, version, label)
            answer = sluice.post(path, document if top is None else document | {"top_k": top})
    except Refused as error:
        raise explaining_404(error, model) from error
    if as_json:
        typer.echo(json.dumps(answer))
    elif (table := classes(answer.get("predictions", answer.get("outputs")))) is not None:
        print_table(table)
    else:
        for line in lines(answer):
            say(line)


@connected(admin=False)
def explain(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    model: ModelArgument,
    file: File,
    version: Version = None,
    label: Label = None,
    target: Annotated[
        str | None, typer.Option("--class", help="What is explained: a class's name or number; without it the best.")
    ] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Pixels that are taken away at once, in each way.")] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Of an image, write a picture of what its score is owed to (PNG).")
    ] = None,
    content_type: ContentType = None,
    as_json: AsJson = False,
) -> None:
    """Show which parts of an instance its score is owed to: pixels, words or columns.

    Parts are taken away one after the other. That is many predictions: it runs as
    a job when the workers have nothing better to do, and needs the scope explain.

    Examples:

      sluice explain mnist seven.png --overlay why.png

      sluice explain reviews review.txt

      sluice explain mnist sluice-data/digit.json --class 7 --json
    """
    require_one(version, label)
    if overlay is not None:
        require_place(overlay)
    options = {"class": _class(target), "patch": patch, "overlay": overlay is not None or as_json}
    asked = {name: value for name, value in options.items() if value is not None}
    given = read_given(file, content_type)
    try:
        document = _document(sluice, given, model, version, label) | {"explain": asked}
        answer = sluice.post(f"{model_path(model, version=version, label=label)}:explain", document)
    except Refused as error:
        raise explaining_404(error, model) from error
    if "explanations" not in answer:
        answer = _ended(sluice, answer)
    if overlay is not None:
        _write_overlay(answer, overlay)
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        print_table(explained(answer))


def require_one(version: int | None, label: str | None) -> None:
    """Raises CommandFailed where both are given."""
    if version is not None and label is not None:
        raise CommandFailed("give --version or --label, not both")


def document_of(name: str) -> Json:
    """The request in a file, for commands that take documents only. Raises CommandFailed."""
    given: Given = read_given(name)
    return given.as_document()


def explaining_404(error: Refused, model: str) -> Exception:
    """The error, or of a 404 to a prediction what it may mean: the gateway does not tell one from the other."""
    if error.status != 404:
        return error
    return CommandFailed(
        f"{error}\nEither it does not serve (`sluice models list`), or this client has no grant for it "
        f"(`sluice clients grant CLIENT --model {model}`)."
    )


def _document(sluice: Client, given: Given, model: str, version: int | None, label: str | None) -> Json:
    """What is given as a document; how deep a text stands in it, the model's description tells."""
    if not given.is_text:
        return given.as_document()
    try:
        inputs = sluice.metadata(model, version=version, label=label).inputs
    except Refused as error:
        if error.status not in (403, 404):
            raise
        # Who may ask a model need not see what it takes.
        return given.as_document()
    return given.as_document(max((len(one.shape) for one in inputs.values()), default=1))


def _class(target: str | None) -> int | str | None:
    return int(target) if target is not None and target.isascii() and target.isdecimal() else target


def _ended(sluice: Client, answer: Json) -> Json:
    """The answer of the job that the request became. Raises CommandFailed where it did not succeed."""
    job = sluice.job(answer["id"])
    ended = job.wait()
    if ended["state"] != "succeeded":
        error = ended["error"] or {"message": "it was canceled", "code": ended["state"]}
        raise CommandFailed(f"job {job.id} {ended['state']}: {error['message']} ({error['code']})")
    return sluice.get(f"/v1/jobs/{quote(job.id, safe='')}/result")


def _write_overlay(answer: Json, place: Path) -> None:
    drawn = next(iter(answer["explanations"][0].get("overlays", {}).values()), None)
    if drawn is None:
        raise CommandFailed("there is no overlay: this was no image")
    write_lines(place, [base64.b64decode(drawn["b64"])])
    typer.echo(f"{place} shows what the score is owed to", err=True)
