"""`sluice bench`: how many predictions a gateway gives to this machine, and how long they take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sluice.answers import Json
from sluice.completing import ModelArgument
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_options import AsJson
from sluice.predict_commands import Label, Version, require_one
from sluice.request_files import JSON_TYPE, Given, read_given
from sluice.tables import print_table
from sluice.targets import Target
from sluice.version_table import row

if TYPE_CHECKING:
    from sluice.client import Client
    from sluice.load import Findings, Plan

USUAL_SECONDS = 10.0
LONGEST_SECONDS = 3600.0
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("slowest", 1.0))


@connected(admin=False)
def bench(  # noqa: PLR0913 - a command's arguments are its options
    sluice: Client,
    model: ModelArgument,
    connections: Annotated[int, typer.Option("--connections", "-c", min=1, max=1000, help="Requests at a time.")] = 8,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=LONGEST_SECONDS, help="How long; 10 seconds where neither is said.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="How many requests; with --seconds, at most.")] = None,
    file: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="What is sent, as for `sluice predict`.")
    ] = None,
    instances: Annotated[int, typer.Option(min=1, max=10_000, help="Of random instances, how many in a request.")] = 1,
    binary: Annotated[
        bool, typer.Option("--binary/--json-bodies", help="Tensors as bytes, or as JSON (without --input).")
    ] = False,
    submit: Annotated[bool, typer.Option("--submit", help="Submit jobs, rather than wait for predictions.")] = False,
    version: Version = None,
    label: Label = None,
    as_json: AsJson = False,
) -> None:
    """Send one request over and over, and print how many were answered and how long that took.

    Each connection sends its next request when it has its answer. Without --input
    it sends random instances that fit the model. Everything counts as any other
    request does: limits, quotas, and jobs, which are written down and stay.

    The load comes from one process of Python, which can do so much and no more:
    where that is what was measured, it says so.

    Examples:

      sluice bench mnist --connections 16 --seconds 10

      sluice bench mnist --input sluice-data/digit.json --requests 1000 --json

      sluice bench linear --binary --instances 64

      sluice bench linear --submit --requests 100
    """
    from sluice import load

    require_one(version, label)
    if binary and (submit or file is not None):
        raise CommandFailed("--binary is for random tensors and predictions: neither with --input nor with --submit")
    plan = load.Plan(
        sluice.base_url,
        *_request(sluice, Target(model, version, label), _given(file), instances, binary=binary, submit=submit),
        connections,
        seconds if seconds is not None or requests is not None else USUAL_SECONDS,
        requests,
    )
    found = _watched(plan, sluice, shown=not as_json)
    if as_json:
        typer.echo(json.dumps(document(plan, found)))
    else:
        _print(plan, found)
    if not found.good:
        raise typer.Exit(1)


def document(plan: Plan, found: Findings) -> dict[str, Json]:
    """The findings for programs; latencies are in milliseconds."""
    return {
        "connections": plan.connections,
        "body_bytes": len(plan.content),
        "seconds": round(found.seconds, 3),
        "answered": found.good,
        "requests_per_second": round(found.good / found.seconds, 1) if found.seconds else 0.0,
        "latency_ms": {name: _milliseconds(found.quantile(share)) for name, share in QUANTILES},
        "errors": dict(found.errors),
        "first_errors": found.examples,
        "generator": {
            "cpu_share": round(found.busy, 3),
            "cpu_ms_per_request": _milliseconds(found.cpu_seconds / max(found.good + found.errors.total(), 1)),
            "limiting": _is_limit(found),
        },
    }


def _given(file: str | None) -> Given | None:
    return None if file is None else read_given(file)


def _request(
    sluice: Client, target: Target, given: Given | None, instances: int, *, binary: bool, submit: bool
) -> tuple[str, bytes, dict[str, str]]:
    """Path, body and headers of what is sent."""
    path = f"{target.path}:{'submit' if submit else 'predict'}"
    if given is not None and given.is_file:
        return path, given.content, {"Content-Type": given.content_type}
    if given is not None:
        return path, json.dumps(given.document).encode(), {"Content-Type": JSON_TYPE}
    # Here, so that other commands need not wait for NumPy.
    from sluice.binary_tensors import encode
    from sluice.random_tensors import random_tensors

    tensors = random_tensors(sluice.get(f"{target.path}/metadata"), instances)
    if binary:
        content, headers = encode(tensors, None)
        return target.infer_path, content, headers
    body = {"inputs": {name: tensor.tolist() for name, tensor in tensors.items()}}
    return path, json.dumps(body).encode(), {"Content-Type": JSON_TYPE}


def _watched(plan: Plan, sluice: Client, *, shown: bool) -> Findings:
    from sluice import load

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task("Sending", total=plan.requests if plan.seconds is None else plan.seconds)

        def look(findings: Findings) -> None:
            done = findings.good + findings.errors.total()
            told = f"{findings.good} answered, {findings.errors.total()} errors"
            at = done if plan.seconds is None else progress.tasks[0].elapsed or 0
            progress.update(task, completed=at, description=told)

        return load.run(plan, sluice.token, look)


def _print(plan: Plan, found: Findings) -> None:
    said = document(plan, found)
    table = Table("", "", show_header=False)
    row(table, "answered", f"{found.good:,} in {found.seconds:.1f} s over {plan.connections} connections")
    row(table, "requests a second", f"{said['requests_per_second']:,}")
    for name, milliseconds in said["latency_ms"].items():
        row(table, name, "" if milliseconds is None else f"{milliseconds:,.1f} ms")
    for kind, count in found.errors.most_common():
        row(table, f"error: {kind}", f"{count:,}; the first: {found.examples[kind]}")
    generator = said["generator"]
    row(
        table, "this process", f"{found.busy:.0%} of a processor, {generator['cpu_ms_per_request']} ms for each request"
    )
    print_table(table)
    if generator["limiting"]:
        typer.echo(
            "These figures are this process's: it had no processor time left, so the gateway may do better. Run "
            "several at once, from other machines, or a load generator that is not written in Python.",
            err=True,
        )


def _is_limit(found: Findings) -> bool:
    from sluice.load import BUSY

    return found.busy > BUSY


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
