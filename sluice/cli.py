"""The command `sluice`: puts the verbs together, and says in one line what went wrong."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from model_store.errors import SluiceError
from sluice import (
    access_commands,
    audit_commands,
    batch_commands,
    bench_commands,
    bundle_commands,
    canary_commands,
    client_commands,
    client_key_commands,
    client_record_commands,
    completing,
    dead_letter_commands,
    event_commands,
    gate_commands,
    import_commands,
    job_commands,
    job_policy_commands,
    key_commands,
    limit_commands,
    login_commands,
    model_card_commands,
    model_commands,
    model_settings_commands,
    people_commands,
    predict_commands,
    receipt_commands,
    sample_commands,
    server_commands,
    shadow_commands,
    storage_commands,
    submit_commands,
    token_commands,
    traffic_commands,
    upload_commands,
    upload_key_commands,
    variant_commands,
    version_commands,
    version_policy_commands,
    webhook_commands,
    worker_commands,
)
from sluice.answers import Refused, SluiceFailed, Unreachable
from sluice.extras import explained
from sluice.failures import CommandFailed
from sluice.shown_texts import cell

UNREACHABLE = 75

app = typer.Typer(
    name="sluice",
    help="A secured multi-model gateway: a JWT in front, a queue behind, Keras models at work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=(
        "`sluice COMMAND --help` shows a command's options and examples. The exit code is 1 where a command failed, "
        "2 where it was not understood, and 75 where the gateway cannot be reached."
    ),
)
for command, panel in (
    (server_commands.up, "Everything on this machine"),
    (server_commands.gateway, "Single processes"),
    (server_commands.worker, "Single processes"),
    (server_commands.prepare_worker, "Single processes"),
    (server_commands.background_worker, "Single processes"),
    (server_commands.migrate, "Single processes"),
    (login_commands.login, "Working with a gateway"),
    (login_commands.logout, "Working with a gateway"),
    (login_commands.whoami, "Working with a gateway"),
    (predict_commands.predict, "Working with a gateway"),
    (predict_commands.explain, "Working with a gateway"),
    (bench_commands.bench, "Working with a gateway"),
    (event_commands.events, "Working with a gateway"),
):
    app.command(rich_help_panel=panel)(command)
app.command("completion", rich_help_panel="For your shell")(completing.completion)
app.add_typer(model_commands.app, name="models", rich_help_panel="Working with a gateway")
for verb in (
    version_commands.label,
    version_commands.unlabel,
    version_commands.retire,
    version_commands.restore,
    version_commands.rollback,
    version_commands.delete,
):
    model_commands.app.command(verb.__name__)(verb)
model_commands.app.add_typer(version_policy_commands.app, name="policy")
model_commands.app.command("import")(import_commands.import_version)
model_commands.app.add_typer(gate_commands.app, name="gates")
model_commands.app.add_typer(upload_commands.app, name="uploads")
job_commands.app.command("submit")(submit_commands.submit)
job_commands.app.command("watch")(event_commands.watch)
app.add_typer(batch_commands.app, name="batch", rich_help_panel="Working with a gateway")
app.add_typer(job_commands.app, name="jobs", rich_help_panel="Working with a gateway")
app.add_typer(dead_letter_commands.app, name="dead-letters", rich_help_panel="Working with a gateway")
app.add_typer(receipt_commands.app, name="receipt", rich_help_panel="Working with a gateway")
app.add_typer(bundle_commands.app, name="bundle", rich_help_panel="Working with a gateway")
app.add_typer(worker_commands.app, name="workers", rich_help_panel="Working with a gateway")
model_commands.app.add_typer(job_policy_commands.app, name="jobs-policy")
model_commands.app.add_typer(traffic_commands.app, name="traffic")
model_commands.app.add_typer(shadow_commands.app, name="shadow")
model_commands.app.add_typer(canary_commands.app, name="canary")
model_commands.app.add_typer(model_settings_commands.app, name="settings")
model_commands.app.command("describe")(model_settings_commands.describe)
model_commands.app.add_typer(sample_commands.app, name="samples")
model_commands.app.command("card")(model_card_commands.card)
model_commands.app.command("evaluate")(model_card_commands.evaluate)
model_commands.app.add_typer(variant_commands.app, name="variants")
model_commands.app.command("prepare")(variant_commands.prepare)
model_commands.app.command("compare")(variant_commands.compare)
client_commands.app.command("show")(client_record_commands.show)
client_commands.app.command("delete")(client_record_commands.delete)
client_commands.app.command("delete-jobs")(client_record_commands.delete_jobs)
client_commands.app.command("access")(access_commands.access)
client_commands.app.command("keys")(client_key_commands.keys)
client_commands.app.command("identities")(client_key_commands.identities)
client_commands.app.add_typer(limit_commands.app, name="limits")
app.add_typer(client_commands.app, name="clients", rich_help_panel="Working with a gateway")
app.add_typer(token_commands.app, name="tokens", rich_help_panel="Working with a gateway")
app.add_typer(webhook_commands.app, name="webhooks", rich_help_panel="Working with a gateway")
app.add_typer(upload_key_commands.app, name="upload-keys", rich_help_panel="Working with a gateway")
server_commands.admin.command("setup-token")(people_commands.setup_token)
app.add_typer(server_commands.admin, name="admin", rich_help_panel="On the machine that has the database")
app.add_typer(audit_commands.app, name="audit", rich_help_panel="On the machine that has the database")
app.add_typer(key_commands.app, name="keys", rich_help_panel="On the machine that has the database")
app.add_typer(storage_commands.app, name="storage", rich_help_panel="On the machine that has the database")
app.add_typer(people_commands.app, name="people", rich_help_panel="On the machine that has the database")


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    # Here: it takes as long as all commands of this file together.
    import importlib.metadata

    typer.echo(importlib.metadata.version("sluice-gateway"))
    raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        # A callback of its own: the body of this one is not reached without a command.
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """A secured multi-model gateway: a JWT in front, a queue behind, Keras models at work."""


def main() -> None:
    """Run the command line; what a command expects to go wrong ends with its reason and exit code 1.

    Where no gateway answers it is 75, EX_TEMPFAIL of sysexits.h: the same command may succeed later.
    """
    try:
        app()
    except (CommandFailed, SluiceFailed, SluiceError) as error:
        _fail(error)
    except ModuleNotFoundError as error:
        _fail(explained(error))


def _fail(error: Exception) -> NoReturn:
    said = f"{error}{_way_out(error)}"
    Console(stderr=True, soft_wrap=True).print(f"[red]Error:[/] {cell(said)}", highlight=False)
    sys.exit(UNREACHABLE if isinstance(error, Unreachable) else 1)


def _way_out(error: Exception) -> str:
    """What to do about an error that the gateway says the same of to programs."""
    if isinstance(error, Refused) and error.code == "model_not_found":
        return "\n`sluice models list` shows what there is."
    return ""
