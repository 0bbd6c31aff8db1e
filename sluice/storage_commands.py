"""`sluice storage`: encryption of what the store keeps, on a machine that has the store."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import track

from model_store.errors import ArtifactCorrupt, ArtifactMissing
from sluice.failures import CommandFailed
from sluice.local_database import Data, use_folder

app = typer.Typer(help="Encryption of models, inputs and results where they are kept.", no_args_is_help=True)


@app.command("seal")
def seal(data: Data = None) -> None:
    """Encrypt all models under the newest key of SLUICE_STORAGE_KEY.

    For a store that has just been given a key, or another one in front of
    those that it had. Serving goes on meanwhile; it may be stopped and begun
    again. Jobs' inputs and results are not touched: they are gone when their
    time is over, and the old key can go then.

    Example:

      SLUICE_STORAGE_KEY="$(cat new old)" sluice storage seal
    """
    use_folder(data)
    from model_store.artifacts import Artifacts
    from model_store.settings import StoreSettings
    from sluice.configuration import settings_of

    settings = settings_of(StoreSettings)
    if settings.storage_key is None:
        raise CommandFailed("there is no SLUICE_STORAGE_KEY to encrypt under: `sluice keys new-master` makes one")
    artifacts = Artifacts.of(settings)
    digests = sorted(artifacts.digests())
    written, failed = 0, []
    for digest in track(digests, "Encrypting", console=Console(stderr=True), disable=not digests):
        try:
            written += artifacts.seal(digest)
        except ArtifactMissing:  # deleted meanwhile
            continue
        except ArtifactCorrupt as error:
            failed.append(str(error))
    typer.echo(f"{len(digests)} files, {written} of them written again")
    if failed:
        raise CommandFailed("\n".join(failed))
