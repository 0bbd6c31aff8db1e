"""`sluice models variants …`, `prepare` and `compare`: what is made of a model's versions, and which of it serves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from sluice.answers import Json
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.model_card_commands import Version
from sluice.model_commands import Model
from sluice.output_options import AsJson
from sluice.preparation import LOOK_SECONDS, newest_available, version_path
from sluice.shown_texts import say
from sluice.tables import print_table
from sluice.version_table import number, row, shown_batches, size

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(
    help="Which variants of a model are made, and which one serves (for administrators).", no_args_is_help=True
)

Names = Annotated[
    list[str] | None,
    typer.Option("--make", help="A variant to make and keep; may be given several times: onnx-int8, litert, …"),
]
Serve = Annotated[str | None, typer.Option(help="The variant that serves, or fastest_within_tolerance.")]
Quantised = Annotated[
    bool | None, typer.Option("--quantised/--exact", help="Whether quantised variants may serve by being the fastest.")
]
Floor = Annotated[float | None, typer.Option(help="Share of equal answers that quantised variants need.")]
Absolute = Annotated[float | None, typer.Option(help="Float variants: |Δ| <= ABSOLUTE + relative * |y|.")]
Relative = Annotated[float | None, typer.Option(help="Float variants: |Δ| <= absolute + RELATIVE * |y|.")]


@app.command("show")
@connected(admin=True)
def show(sluice: Client, model: Model, as_json: AsJson = False) -> None:
    """Show a model's variant policy.

    Example:

      sluice models variants show mnist
    """
    _print(sluice.get(_path(model)), as_json=as_json)


@app.command("set")
@connected(admin=True)
def set_policy(  # noqa: PLR0913 - the options of a command
    sluice: Client,
    model: Model,
    make: Names = None,
    serve: Serve = None,
    quantised: Quantised = None,
    floor: Floor = None,
    absolute: Absolute = None,
    relative: Relative = None,
    as_json: AsJson = False,
) -> None:
    """Change a model's variant policy; what is not named stays as it is. It holds for versions prepared from then on.

    Examples:

      sluice models variants set mnist --make onnx --make onnx-int8 --make litert

      sluice models variants set mnist --make onnx-int8 --quantised
    """
    given = _given(make, serve, quantised, floor, absolute, relative)
    if not given:
        raise CommandFailed("name at least one part; `sluice models variants clear` removes the policy")
    _print(sluice.put(_path(model), sluice.get(_path(model)) | given), as_json=as_json)
    if not as_json:
        typer.echo(
            f"It holds for new versions; `sluice models prepare {model} VERSION` applies it to one that is there."
        )


@app.command("clear")
@connected(admin=True)
def clear(sluice: Client, model: Model) -> None:
    """Remove a model's variant policy.

    Example:

      sluice models variants clear mnist
    """
    sluice.delete(_path(model))
    typer.echo(f"{model} has no variant policy of its own any more")


@connected(admin=True)
def prepare(  # noqa: PLR0913 - the options of a command
    sluice: Client,
    model: Model,
    version: Version = None,
    make: Names = None,
    serve: Serve = None,
    quantised: Quantised = None,
    floor: Floor = None,
    absolute: Absolute = None,
    relative: Relative = None,
    wait: Annotated[bool, typer.Option(help="Wait until that is done, and fail if it fails.")] = True,
    as_json: AsJson = False,
) -> None:
    """Prepare a version again, by the model's variant policy with the changes named here. It serves meanwhile.

    Examples:

      sluice models prepare mnist

      sluice models prepare mnist 1 --make litert --make litert-int8
    """
    version = version or newest_available(sluice, model)
    given = _given(make, serve, quantised, floor, absolute, relative)
    body = sluice.get(_path(model)) | given if given else None
    answer = sluice.post(f"{version_path(model, version)}/prepare", body)
    if not wait:
        typer.echo(json.dumps(answer) if as_json else f"{model} version {version} is being prepared again")
        return
    found = _followed(sluice, model, version)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        say(f"{model} version {version}: {found['report']['reason']}")


@connected(admin=True)
def compare(
    sluice: Client,
    model: Model,
    version: Annotated[int, typer.Argument(min=1, help="A version.")],
    other: Annotated[
        int | None, typer.Argument(min=1, help="The version to compare it with; without it the newest that serves.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show two versions' preparation reports side by side.

    Examples:

      sluice models compare mnist 1

      sluice models compare mnist 1 2
    """
    other = other or newest_available(sluice, model)
    found = sluice.get(f"{version_path(model, version)}/compare", **{"with": other})
    if as_json:
        typer.echo(json.dumps(found))
        return
    for table in (_versions(found), compared(found), latencies(found), _steps(found)):
        print_table(table)
    for name, side, figures in _figures(found):
        if figures["reason"] and side["chosen"] != name:
            say(f"{name} of version {side['version']}: {figures['reason']}")


def _given(
    make: list[str] | None,
    serve: str | None,
    quantised: bool | None,
    floor: float | None,
    absolute: float | None,
    relative: float | None,
) -> dict[str, object]:
    parts = {
        "variants": make or None, "serve": serve, "quantised": quantised, "top1_floor": floor, "absolute": absolute,
        "relative": relative,
    }  # fmt: skip
    return {name: value for name, value in parts.items() if value is not None}


def _followed(sluice: Client, model: str, version: int) -> Json:
    """The version once its preparation is done; raises CommandFailed where that changed nothing."""
    with Console(stderr=True).status("Preparing") as status:
        while True:
            found = sluice.get(version_path(model, version))
            if found["preparation"]["done"]:
                break
            status.update(f"Preparing: {escape(found['preparation']['step'])}")
            time.sleep(LOOK_SECONDS)
    failure = (found["report"] or {}).get("failed_repeat")
    if failure is not None:
        raise CommandFailed(
            f"nothing has changed: {failure['message']} ({failure['code']})\n"
            f"`sluice models show {model} {version} --json` has the whole report."
        )
    return found


def _path(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/variant-policy"


def _print(policy: Json, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(policy))
        return
    table = Table("part", "value")
    row(table, "made and kept", " ".join(policy["variants"]))
    row(table, "serves", policy["serve"])
    row(table, "tolerance", f"{policy['absolute']:g} + {policy['relative']:g} * |y|")
    row(table, "quantised may serve", "yes" if policy["quantised"] else "no")
    row(table, "top-1 floor", f"{policy['top1_floor']:g}")
    print_table(table)


def _versions(found: Json) -> Table:
    table = Table("version", "state", "format", "size", "serves", "batch up to", title_justify="left")
    table.title = f"{escape(found['model'])}: " + ("the same" if found["versions"][0]["same_signature"] else "another")
    table.title += " signature"
    for side in found["versions"]:
        row(
            table,
            str(side["version"]),
            side["state"],
            side["format"],
            decimal(side["size_bytes"]),
            side["chosen"] or "",
            str(side["max_batch"]),
        )
    return table


def _figures(found: Json) -> Iterator[tuple[str, Json, Json]]:
    """Each variant of each of the two versions: its name, the version, and what was found of it."""
    for variant in found["variants"]:
        for side, figures in zip(found["versions"], variant["figures"], strict=True):
            if figures is not None:
                yield variant["name"], side, figures


def compared(found: Json) -> Table:
    """A line for each version's variant: sizes, and how far it is from the original."""
    table = Table("name", "", "size", "memory", "|Δ|", "top-1", "", title="Variants", title_justify="left")
    for name, side, figures in _figures(found):
        sizes = (size(figures["size_bytes"]), size(figures["memory_bytes"]))
        answers = (number(figures["max_abs_difference"]), number(figures["top1_agreement"]))
        verdict = "serves" if side["chosen"] == name else "refused" if figures["reason"] else ""
        row(table, name, f"v{side['version']}", *sizes, *answers, verdict)
    return table


def latencies(found: Json) -> Table:
    """A line for each version's variant: milliseconds by instances in a batch."""
    took = [(name, side, shown_batches(figures["latency_ms"])) for name, side, figures in _figures(found)]
    measured = sorted({int(batch) for *_, one in took for batch in one})
    table = Table("name", "", *map(str, measured), title="Milliseconds by instances", title_justify="left")
    for name, side, one in took:
        row(table, name, f"v{side['version']}", *(number(one.get(str(batch))) for batch in measured))
    return table


def _steps(found: Json) -> Table:
    first, second = (f"version {side['version']} (s)" for side in found["versions"])
    table = Table("step", first, second, title="Preparation", title_justify="left")
    for step in found["steps"]:
        row(table, step["name"], *("" if seconds is None else f"{seconds:.2f}" for seconds in step["seconds"]))
    return table
