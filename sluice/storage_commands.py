"""`sluice storage`: encryption of what the store keeps, and copies of it, on a machine that has the store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from model_store.errors import ArtifactCorrupt, ArtifactMissing
from sluice.failures import CommandFailed
from sluice.local_database import Data, use_folder

app = typer.Typer(help="Encryption and copies of models, inputs and results where they are kept.", no_args_is_help=True)


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


@app.command("copy")
def copy(
    to: Annotated[str, typer.Option("--to", help="s3://bucket/prefix, or a folder.", metavar="STORE")],
    data: Data = None,
) -> None:
    """Copy everything that the store keeps to another store.

    From the store that the settings name, a folder or a bucket; endpoint and
    keys of a bucket are those of the settings. Stop gateways and workers
    first. What is encrypted stays encrypted under the same key.

    Example:

      sluice storage copy --to s3://models/production
    """
    use_folder(data)
    from model_store.artifacts import store_of
    from model_store.settings import StoreSettings
    from model_store.stores.copying import copy_store
    from sluice.configuration import settings_of

    settings = settings_of(StoreSettings)
    # Checked like the settings themselves: a slip must not become a folder of that name.
    place = {"store_url": to} if "://" in to else {"store_url": "", "store_dir": Path(to)}
    target = StoreSettings(**{**settings.model_dump(), **place})
    if (settings.store_url, settings.store_dir if not settings.store_url else None) == (
        target.store_url,
        target.store_dir if not target.store_url else None,
    ):
        raise CommandFailed("that is the store itself")
    console = Console(stderr=True)
    with console.status("Copying") as status:
        copied = copy_store(
            store_of(settings), store_of(target), lambda done: status.update(f"Copying: {done.files} files")
        )
    typer.echo(f"{copied.files} files, {copied.size_bytes} bytes; {copied.kept} were there already")
