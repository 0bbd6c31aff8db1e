"""`sluice people` and the set-up token: people who sign in, on the machine that has the database."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from auth.roles import Role
from sluice.local_database import Data, local_database
from sluice.output_options import AsJson
from sluice.tables import print_rows

app = typer.Typer(help="People, who sign in by name and password.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Whose.")]


@app.command("add")
def add_person(
    name: Annotated[str, typer.Argument(help="Name to sign in with.")],
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.READER,
    data: Data = None,
) -> None:
    """Add a person; the password is asked for, or read from standard input where that is no terminal.

    Readers look at /docs and /metrics, auditors at models and the audit log
    as well, operators upload and try models, administrators do everything.

    Examples:

      sluice people add ada

      sluice people add grace --role operator
    """
    from auth import people
    from auth.passwords import Passwords

    hashed = Passwords().hash(_ask_for_password())
    with local_database(data) as session:
        people.create(session, name, hashed, role)
    typer.echo(f"{name} can sign in")


@app.command("list")
def list_people(data: Data = None, as_json: AsJson = False) -> None:
    """Show everybody who was added, with their roles.

    Examples:

      sluice people list

      sluice people list --json
    """
    from auth import people

    heads, rows = ("name", "id", "role", "state", "second factor"), []
    with local_database(data) as session:
        found = people.page(session, limit=1000)
        while found:
            for person in found:
                state = "disabled" if person.disabled else "enabled" if person.password_hash else "invited"
                rows.append((person.name, person.id, person.role, state, "yes" if person.second_factor else "no"))
            found = people.page(session, after=found[-1].name, limit=1000)
    print_rows(heads, rows, as_json=as_json)


@app.command("role")
def set_role(
    name: Name, role: Annotated[Role, typer.Argument(help="What the person may do from now on.")], data: Data = None
) -> None:
    """Change what a person may do; sessions and tokens so far end.

    Example:

      sluice people role ada auditor
    """
    from auth import people

    with local_database(data) as session:
        people.set_role(session, people.named(session, name), role)
    typer.echo(f"{name} is {role} now")


@app.command("password")
def set_password(name: Name, data: Data = None) -> None:
    """Give a person a new password; the old one, sessions and tokens are refused at once.

    Example:

      sluice people password ada
    """
    from auth import people
    from auth.passwords import Passwords

    hashed = Passwords().hash(_ask_for_password())
    with local_database(data) as session:
        people.set_password(session, people.named(session, name), hashed)
    typer.echo(f"{name} has a new password")


@app.command("password-token")
def make_password_token(name: Name, data: Data = None) -> None:
    """Print a token with which a person chooses a new password themselves, within a day.

    Example:

      sluice people password-token ada
    """
    from auth import one_time_tokens, people
    from auth.one_time_tokens import Purpose

    with local_database(data) as session:
        person = people.named(session, name)
        token, expires_at = one_time_tokens.issue(session, Purpose.PASSWORD, person.id)
    typer.echo(f"{token}\nGood for one POST /admin/password until {_time(expires_at)}.")


@app.command("remove-second-factor")
def remove_second_factor(name: Name, data: Data = None) -> None:
    """Remove the second factor of somebody who lost it; sessions and tokens so far end.

    Example:

      sluice people remove-second-factor ada
    """
    from auth import people

    with local_database(data) as session:
        people.remove_second_factor(session, people.named(session, name))
    typer.echo(f"{name} has no second factor; the password alone signs in, until a new one is set up")


@app.command("disable")
def disable_person(name: Name, data: Data = None) -> None:
    """Refuse a person from now on.

    Example:

      sluice people disable ada
    """
    from auth import people

    with local_database(data) as session:
        people.set_disabled(session, people.named(session, name), True)
    typer.echo(f"{name} can no longer sign in; `sluice people enable {name}` takes it back")


@app.command("enable")
def enable_person(name: Name, data: Data = None) -> None:
    """Let a disabled person sign in again.

    Example:

      sluice people enable ada
    """
    from auth import people

    with local_database(data) as session:
        people.set_disabled(session, people.named(session, name), False)
    typer.echo(f"{name} can sign in")


@app.command("delete")
def delete_person(name: Name, data: Data = None) -> None:
    """Forget a person; their sessions and tokens end.

    Example:

      sluice people delete ada
    """
    from auth import people

    with local_database(data) as session:
        people.delete(session, people.named(session, name))
    typer.echo(f"{name} is deleted")


def setup_token(data: Data = None) -> None:
    """Print the token with which the first administrator is made in the browser, or by POST /admin/setup.

    It works once, within an hour, and only as long as there is no
    administrator among the people.

    Example:

      sluice admin setup-token
    """
    from auth import one_time_tokens, people
    from auth.one_time_tokens import Purpose
    from auth.people_errors import AdministratorExists

    with local_database(data) as session:
        if people.administrator_exists(session):
            raise AdministratorExists
        token, expires_at = one_time_tokens.issue(session, Purpose.SETUP)
    typer.echo(f"{token}\nGood for one POST /admin/setup until {_time(expires_at)}.")


def _ask_for_password() -> str:
    if sys.stdin.isatty():
        asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        return asked
    return sys.stdin.readline().rstrip("\n")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
