"""`sluice models settings …` and `sluice models describe`: what is said of models, and how they run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from sluice.answers import Json
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.preparation import version_path
from sluice.tables import print_table
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Settings of models (for administrators).", no_args_is_help=True)

Description = Annotated[str | None, typer.Option(help="What it is, for people.")]
ClassNames = Annotated[
    Path | None, typer.Option(help="A file with a class name on each line, in the order of the output.", exists=True)
]
Specification = Annotated[
    Path | None,
    typer.Option(
        "--input", help="A JSON file that says how an image, text or recording becomes the input.", exists=True
    ),
]


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show a model's settings.

    Example:

      sluice models settings show mnist
    """
    _print(sluice.get(_path(model)), as_json=as_json)


@app.command("set")
@connected(admin=True)
def set_settings(  # noqa: PLR0913 - a command's options
    sluice: Client,
    model: Model,
    pool: Annotated[str | None, typer.Option(help="Workers that run it; empty for those in no pool.")] = None,
    pinned: Annotated[bool | None, typer.Option(help="Whether it stays loaded where others are evicted.")] = None,
    parallelism: Annotated[
        int | None, typer.Option(min=0, help="Most slots that run a version at once; 0 is as measured.")
    ] = None,
    instances: Annotated[
        int | None, typer.Option(min=0, help="Most instances of a request; 0 is what the settings allow.")
    ] = None,
    description: Description = None,
    class_names: ClassNames = None,
    specification: Specification = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=TEXT; may be given several times.")] = None,
    remove_tag: Annotated[list[str] | None, typer.Option(help="The name of a tag to remove.")] = None,
    warm_up: Annotated[
        list[Path] | None, typer.Option(help="A JSON file with a request that new versions answer first.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a model's settings; what is not named stays as it is.

    Examples:

      sluice models settings set mnist --pinned --parallelism 2 --tag team=vision

      sluice models settings set mnist --class-names digits.txt --input image.json
    """
    found = sluice.get(_path(model))
    if pool is not None:
        found["pool"] = pool or None
    if pinned is not None:
        found["pinned"] = pinned
    if parallelism is not None:
        found["max_parallelism"] = parallelism or None
    if instances is not None:
        found["max_instances"] = instances or None
    found |= _described(description, class_names, specification)
    found["tags"] = _tags(found["tags"], tag or (), remove_tag or ())
    if warm_up:
        found["warm_up"] = [_json(path) for path in warm_up]
    _print(sluice.put(_path(model), found), as_json=as_json)


@connected(admin=True)
def describe(
    sluice: Client,
    model: Model,
    version: Annotated[int, typer.Argument(min=1, help="Its version.")],
    description: Description = None,
    class_names: ClassNames = None,
    specification: Specification = None,
    as_json: AsJson = False,
) -> None:
    """Say of one version what its model's settings do not; without options, show what describes it.

    Examples:

      sluice models describe mnist 2

      sluice models describe mnist 2 --description "Trained on the second batch of scans."
    """
    path = f"{version_path(model, version)}/metadata"
    said = _described(description, class_names, specification)
    if not said:
        _print(sluice.get(path), as_json=as_json)
        return
    # What is answered may be the model's: only what was said of the version itself is sent back.
    own = sluice.get(path, own="true")
    _print(sluice.put(path, own | said), as_json=as_json)


def _tags(known: Json, given: Iterable[str], removed: Iterable[str]) -> Json:
    tags = dict(known)
    for one in given:
        name, _, text = one.partition("=")
        if not text:
            raise CommandFailed(f"--tag {one} has no text: write it as {name or 'team'}=TEXT; --remove-tag removes one")
        tags[name] = text
    for name in removed:
        if tags.pop(name, None) is None:
            raise CommandFailed(f"there is no tag {name}")
    return tags


def _described(description: str | None, class_names: Path | None, specification: Path | None) -> dict[str, Json]:
    said: dict[str, Json] = {}
    if description is not None:
        said["description"] = description or None
    if class_names is not None:
        said["class_names"] = [line for line in class_names.read_text().splitlines() if line]
    if specification is not None:
        said["input_specification"] = _json(specification)
    return said


def _json(path: Path) -> Json:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise CommandFailed(f"{path} is not JSON: {error}") from error


def _path(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/settings"


def _print(found: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("setting", "value")
    for name, value in found.items():
        row(table, name, _shown(value))
    print_table(table)


def _shown(value: Json) -> str:
    if value in (None, [], {}):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
