"""Options that every command has which talks to a gateway: where it is and who asks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_current_context  # type: ignore[attr-defined] # typer exports no other way to ask

if TYPE_CHECKING:
    from sluice.credentials import Identity

Command = Callable[..., None]

PANEL = "Who asks"

Url = Annotated[str | None, typer.Option(envvar="SLUICE_URL", help="Address of the gateway.", rich_help_panel=PANEL)]
ClientId = Annotated[
    str | None, typer.Option(envvar="SLUICE_CLIENT_ID", help="Id of the client.", rich_help_panel=PANEL)
]
ClientSecret = Annotated[
    str | None,
    typer.Option(
        envvar="SLUICE_CLIENT_SECRET",
        help="Its secret. Better in the environment: other users of the machine can read arguments.",
        rich_help_panel=PANEL,
    ),
]
Credentials = Annotated[
    Path | None,
    typer.Option(
        envvar="SLUICE_CREDENTIALS",
        help=(
            "JSON file with base_url, client_id and client_secret. Without any of these options: what `sluice login` "
            "wrote, or else sluice-data/demo.json."
        ),
        rich_help_panel=PANEL,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        envvar="SLUICE_PROFILE", help="The login of this name: see `sluice login --profile`.", rich_help_panel=PANEL
    ),
]
Admin = Annotated[
    bool,
    typer.Option(
        "--admin/--no-admin",
        help="Of a file with two pairs, use admin_client_id and admin_client_secret.",
        rich_help_panel=PANEL,
    ),
]

SHARED = {
    "url": Url, "client_id": ClientId, "client_secret": ClientSecret, "credentials": Credentials, "profile": Profile,
}  # fmt: skip


def connected(*, admin: bool) -> Callable[[Command], Command]:
    """Gives a command an open client as its first argument, and the options above for it; `admin` is their default."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def connect(*, admin: bool, **options: object) -> None:
            # Here: `--help` and shells that complete a word need no HTTP client, which takes longer than all the rest.
            from sluice.credentials import client_of

            own = {name: value for name, value in options.items() if name not in SHARED}
            with client_of(identity(), admin=admin) as sluice:
                command(sluice, **own)

        # Typer reads a command's options from its signature; the client's class is known to type checkers only.
        signature = inspect.signature(command, eval_str=True, locals={"Client": object})
        _, *own = signature.parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in SHARED.items()]
        shared.append(inspect.Parameter("admin", keyword, default=admin, annotation=Admin))
        parameters = [*(parameter.replace(kind=keyword) for parameter in own), *shared]
        connect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
        connect.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return connect

    return decorate


def identity() -> Identity:
    """Whose credentials the running command uses. Raises CommandFailed."""
    from sluice.credentials import Asker, chosen

    context = get_current_context()
    given = {name: context.params.get(name) for name in SHARED}
    sources = {name: context.get_parameter_source(name) for name in SHARED}
    typed = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    return chosen(Asker(**given, typed=frozenset(typed)))
