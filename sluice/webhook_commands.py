"""`sluice webhooks`: where a client is told of its jobs' ends, what became of it, and checking what was received."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sluice.answers import Json
from sluice.connection import connected
from sluice.failures import CommandFailed
from sluice.output_options import AsJson
from sluice.received_webhook import TOLERANCE_SECONDS, WebhookInvalid
from sluice.received_webhook import verify as verify_received
from sluice.tables import print_table
from sluice.version_table import moment, row

if TYPE_CHECKING:
    from sluice.client import Client

app = typer.Typer(help="Webhooks: being told of jobs' ends.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(help="The webhook's id: see `sluice webhooks list`.", metavar="webhook")]
DeliveryId = Annotated[str, typer.Argument(help="The delivery's id: see `sluice webhooks log`.", metavar="delivery")]
OverlapHours = Annotated[float, typer.Option(min=0, max=168, help="Hours for which the secret so far signs as well.")]


@app.command("add")
@connected(admin=False)
def add_webhook(
    sluice: Client,
    address: Annotated[str, typer.Argument(help="An https address that SLUICE_WEBHOOK_HOSTS allows.")],
    event: Annotated[
        list[str] | None, typer.Option(help="job.succeeded, job.failed and so on; all by default.")
    ] = None,
    description: Annotated[str, typer.Option(help="A word about it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Be told of jobs' ends at an address. Prints the secret that verifies what comes there, this once.

    Examples:

      sluice webhooks add https://hooks.example.com/sluice

      sluice webhooks add https://hooks.example.com/failed --event job.failed --event job.expired
    """
    body = {"url": address, "events": event or [], "description": description}
    made = sluice.post("/v1/webhooks", body)
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(f"webhook  {made['id']}\nsecret   {made['secret']}\nThe secret is not shown again.")


@app.command("list")
@connected(admin=False)
def list_webhooks(sluice: Client, as_json: AsJson = False) -> None:
    """List the webhooks of this client.

    Example:

      sluice webhooks list
    """
    found = sluice.get("/v1/webhooks")["webhooks"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("webhook", "address", "events", "state", "description")
    for one in found:
        row(table, one["id"], one["url"], " ".join(one["events"]), _state(one), one["description"])
    print_table(table, "webhook")


@app.command("disable")
@connected(admin=False)
def disable(sluice: Client, webhook: WebhookId) -> None:
    """Be told no more; what waits is given up.

    Example:

      sluice webhooks disable whe_4mZQhVYwW0qK7bN2
    """
    sluice.patch(f"/v1/webhooks/{webhook}", {"disabled": True})
    typer.echo(f"{webhook} is disabled")


@app.command("enable")
@connected(admin=False)
def enable(sluice: Client, webhook: WebhookId) -> None:
    """Be told again, also where it was disabled because it took nothing for days.

    Example:

      sluice webhooks enable whe_4mZQhVYwW0qK7bN2
    """
    sluice.patch(f"/v1/webhooks/{webhook}", {"disabled": False})
    typer.echo(f"{webhook} is enabled")


@app.command("remove")
@connected(admin=False)
def remove(sluice: Client, webhook: WebhookId) -> None:
    """Forget a webhook and its secrets.

    Example:

      sluice webhooks remove whe_4mZQhVYwW0qK7bN2
    """
    sluice.delete(f"/v1/webhooks/{webhook}")
    typer.echo(f"{webhook} is removed")


@app.command("test")
@connected(admin=False)
def send_test(sluice: Client, webhook: WebhookId) -> None:
    """Send a webhook an event of the type `webhook.test`.

    Example:

      sluice webhooks test whe_4mZQhVYwW0qK7bN2
    """
    made = sluice.post(f"/v1/webhooks/{webhook}/test")
    typer.echo(f"{made['id']} is on its way: `sluice webhooks log` shows what becomes of it")


@app.command("secret")
@connected(admin=False)
def secret(sluice: Client, rotate: Annotated[bool, typer.Option("--rotate", help="Make a new one.")] = False) -> None:
    """Print the secret of what goes to addresses that submits name with `Sluice-Webhook`.

    Examples:

      sluice webhooks secret

      sluice webhooks secret --rotate
    """
    path = "/v1/webhooks/secret"
    typer.echo((sluice.post(path, {}) if rotate else sluice.get(path))["key"])


@app.command("rotate")
@connected(admin=False)
def rotate(sluice: Client, webhook: WebhookId, overlap_hours: OverlapHours = 24) -> None:
    """Give a webhook a new secret and print it; both sign for a while, so that nothing is refused meanwhile.

    Example:

      sluice webhooks rotate whe_4mZQhVYwW0qK7bN2 --overlap-hours 1
    """
    body = {"overlap_seconds": int(overlap_hours * 3600)}
    typer.echo(sluice.post(f"/v1/webhooks/{webhook}/rotate-secret", body)["key"])


@app.command("log")
@connected(admin=False)
def show_log(
    sluice: Client,
    webhook: Annotated[str | None, typer.Option(help="Of this webhook only.")] = None,
    job: Annotated[str | None, typer.Option(help="Of this job only.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, sending, delivered or given_up.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what was sent where, and how it went.

    Examples:

      sluice webhooks log

      sluice webhooks log --state given_up --json
    """
    wanted = {"webhook": webhook, "job": job, "state": state}
    asked = {name: value for name, value in wanted.items() if value is not None}
    found = sluice.get("/v1/webhooks/deliveries", limit=limit, **asked)["deliveries"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("delivery", "address", "event", "state", "attempts", "last", "since")
    for one in found:
        row(
            table,
            one["id"],
            one["url"],
            one["type"],
            one["state"],
            str(len(one["attempts"])),
            _last(one),
            moment(one["created_at"]),
        )
    print_table(table, "delivery")


@app.command("replay")
@connected(admin=False)
def replay(sluice: Client, delivery: DeliveryId) -> None:
    """Send a delivery that ended again, with the same id.

    Example:

      sluice webhooks replay msg_Zk0o3rVxQ1uYt5pWc8sLd2Ea_4mZQhVYwW0qK7bN2
    """
    sluice.post(f"/v1/webhooks/deliveries/{delivery}/replay")
    typer.echo(f"{delivery} is on its way again")


@app.command("verify")
def verify(
    headers: Annotated[Path, typer.Argument(help="File with the header fields, one `name: value` a line.")],
    body: Annotated[Path, typer.Argument(help="File with the body, byte for byte as it came.")],
    secret: Annotated[
        str, typer.Option(envvar="SLUICE_WEBHOOK_SECRET", help="The secret: whsec_…; better in the environment.")
    ],
    tolerance: Annotated[float, typer.Option(min=0, help="Seconds since it was signed.")] = TOLERANCE_SECONDS,
) -> None:
    """Check a webhook that was received, without asking anybody. Prints its id.

    Example:

      SLUICE_WEBHOOK_SECRET=whsec_… sluice webhooks verify headers.txt body.json
    """
    try:
        lines = headers.read_text().splitlines()
        fields = {
            name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon
        }
        message = verify_received(secret, fields, body.read_bytes(), tolerance_seconds=tolerance)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"a file cannot be read: {error}") from error
    except WebhookInvalid as error:
        raise CommandFailed(str(error)) from error
    typer.echo(f"{message} is genuine")


def _state(webhook: Json) -> str:
    if webhook["disabled"]:
        return f"disabled ({webhook['disabled_reason'] or 'by hand'})"
    since: Any = webhook["failing_since"]
    return f"failing since {moment(since)}" if since else "enabled"


def _last(delivery: Json) -> str:
    if not delivery["attempts"]:
        return ""
    last = delivery["attempts"][-1]
    return " ".join(str(part) for part in (last["error"], last["status"]) if part is not None)
