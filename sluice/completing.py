"""What a shell offers when somebody presses TAB after a command's words: here, names of models.

A gateway is asked only with credentials that are there already, and for a second in all; whatever goes wrong means that
nothing is offered.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Annotated, Literal

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined] # typer does not list it

PATIENCE_SECONDS = 1.0
PAGE = 1000
# By which the script calls the command, as typer names it.
VARIABLE = "_SLUICE_COMPLETE"


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="shell", help="bash, zsh or fish.")],
) -> None:
    """Print the script by which a shell completes commands, options and names of models when you press TAB.

    `sluice --install-completion` puts it where the shell of this terminal finds it.

    Examples:

      sluice completion bash > ~/.local/share/bash-completion/completions/sluice

      sluice completion zsh > ~/.zfunc/_sluice

      sluice completion fish > ~/.config/fish/completions/sluice.fish
    """
    # The name of a shell: nothing is run in one.
    typer.echo(get_completion_script(prog_name="sluice", complete_var=VARIABLE, shell=shell))  # nosec B604


def model_names(incomplete: str) -> list[str]:
    """The names of models that begin so, of those that this user may use or else administers; none where it takes long.

    A thread that still waits when its time is over ends with the process, which has printed nothing by then.
    """
    found: list[str] = []
    asking = threading.Thread(target=_ask, args=(found,), daemon=True)
    asking.start()
    asking.join(PATIENCE_SECONDS)
    return [] if asking.is_alive() else [name for name in found if name.startswith(incomplete)]


def _ask(found: list[str]) -> None:
    """Adds the names to the list."""
    from model_store.names import NAME
    from sluice.client import Client

    opened = partial(Client.from_environment, timeout_seconds=PATIENCE_SECONDS, patience_seconds=0)
    try:
        with opened() as client:
            if client.is_person:
                # Whoever ends with the process in the middle of a renewal would end the sign-in.
                return
            names = client.models()
        if not names:
            with opened(admin=True) as client:
                names = [model["name"] for model in client.get("/admin/models", limit=PAGE)["models"]]
    except Exception:  # noqa: BLE001 - a thread's edge: what is wrong shows when the command runs, not at the prompt
        return
    # What is offered lands in a command line that is run next: of whatever server answered, nothing else than names.
    found += [name for name in names if isinstance(name, str) and NAME.fullmatch(name)]


ModelArgument = Annotated[str, typer.Argument(metavar="model", help="Name of the model.", autocompletion=model_names)]
