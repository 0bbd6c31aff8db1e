"""The background worker's part of imports: fetch what a URI names into the store, and publish it as a version.

The files are packed as one archive of the format `mlflow`, the same for the same files, and prepared like any upload.
"""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Protocol, cast

from celery import Celery

from auth.upload_authority import UploadAuthority, UploadWithdrawn, require_still
from model_store import imports, registry
from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.errors import ArtifactTooLarge, DatabaseUnavailable, SluiceError, StoreFull, StoreUnavailable
from model_store.formats import Format
from model_store.imports import Claimed
from model_store.receipts import Receipt, Stored
from workers.broker import IMPORT
from workers.mlflow import uris
from workers.mlflow.settings import MlflowAccessSettings
from workers.mlflow.sources import RegistryUnavailable, RemoteFile, Source, SourceRefused
from workers.preparation import schedule
from workers.settings import BackgroundSettings

if TYPE_CHECKING:
    from workers.mlflow.server import MlflowServer

log = logging.getLogger(__name__)

TOLD_SECONDS = 1.0
POSTPONE_SECONDS = 10.0
# A zip archive's first moment: the archive of the same files must be the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


class ImportBrokenOff(SluiceError):
    """Whoever fetched ended without a word, as often as it is tried."""

    status = 500
    code = "import_broken_off"


class ImportTookTooLong(SluiceError):
    """It was not there after as long as an import may take."""

    status = 504
    code = "import_took_too_long"


class ImportLost(Exception):
    """Another worker has taken over: nothing may be written for it any more."""


def register_import(app: Celery, settings: BackgroundSettings) -> None:
    """Make `app` one that imports models."""
    sessions, artifacts = sessions_of(connect(settings)), Artifacts.of(settings)

    @app.task(name=IMPORT)
    def import_model(import_id: str) -> None:
        run_import(sessions, artifacts, settings, import_id)


def run_import(sessions: Sessions, artifacts: Artifacts, settings: MlflowAccessSettings, import_id: str) -> None:
    """Fetches for an import that is due, and ends it; after a passing trouble it is due again a little later."""
    try:
        with transaction(sessions) as session:
            held = imports.claim(session, import_id)
        if held is not None:
            _end(sessions, artifacts, settings, held)
    except DatabaseUnavailable:
        log.info("an import waits for the database; it is due again when its lease has run out")
    except ImportLost:
        log.info("an import is not this worker's any more")


def _end(sessions: Sessions, artifacts: Artifacts, settings: MlflowAccessSettings, held: Claimed) -> None:
    try:
        if held.attempt > imports.ATTEMPTS:
            raise ImportBrokenOff(f"the import was broken off {imports.ATTEMPTS} times")
        source, stored = _fetch(sessions, artifacts, settings, held)
        number = _publish(sessions, held, source, stored)
        log.info("%s is imported as version %s of model %s", held.uri, number, held.model)
    except (RegistryUnavailable, StoreUnavailable, StoreFull) as error:
        with transaction(sessions) as session:
            if held.attempt < imports.ATTEMPTS:
                imports.postpone(session, held, POSTPONE_SECONDS)
            else:
                imports.fail(session, held, error)
    except DatabaseUnavailable:
        raise
    except SluiceError as error:
        log.info("an import failed: %s: %s", error.code, error.message)
        with transaction(sessions) as session:
            imports.fail(session, held, error)


def _fetch(
    sessions: Sessions, artifacts: Artifacts, settings: MlflowAccessSettings, held: Claimed
) -> tuple[Source, Stored]:
    if not settings.mlflow_url:
        raise SourceRefused("this background worker has no SLUICE_MLFLOW_URL")
    # Here, since it brings an HTTP client, which no background worker needs that imports nothing.
    from workers.mlflow.server import MlflowServer

    with MlflowServer(settings, _clock(settings, held)) as server:
        source = server.resolve(held.uri, uris.parse(held.uri))
        files = server.files(source)
        total = sum(file.size_bytes for file in files)
        if total > artifacts.limit_bytes:
            raise ArtifactTooLarge(f"the model has {total} bytes; at most {artifacts.limit_bytes} are taken")
        told = _teller(sessions, held, total)
        with artifacts.receive() as receipt:
            told(_pack(server, source, files, receipt, told), at_once=True)
            return source, receipt.commit()


class _Told(Protocol):
    def __call__(self, fetched: int, *, at_once: bool = False) -> None: ...


def _teller(sessions: Sessions, held: Claimed, total: int) -> _Told:
    """Writes down how much was fetched, about once a second; raises ImportLost."""
    last = float("-inf")

    def tell(fetched: int, *, at_once: bool = False) -> None:
        nonlocal last
        if time.monotonic() - last < TOLD_SECONDS and not at_once:
            return
        last = time.monotonic()
        with transaction(sessions) as session:
            if not imports.progress(session, held, fetched, total):
                raise ImportLost

    return tell


def _clock(settings: MlflowAccessSettings, held: Claimed) -> Callable[[], None]:
    """What raises ImportTookTooLong once it did. How long the server may be silent is a limit of its own."""
    until = time.monotonic() + settings.mlflow_import_seconds - held.age_ms / 1000

    def require_time() -> None:
        if time.monotonic() > until:
            raise ImportTookTooLong(f"the import is not there after {settings.mlflow_import_seconds:g} seconds")

    return require_time


def _pack(server: MlflowServer, source: Source, files: list[RemoteFile], receipt: Receipt, told: _Told) -> int:
    """Writes the archive; returns how many bytes its files have."""
    fetched = 0
    told(fetched)
    with zipfile.ZipFile(cast(IO[bytes], _Written(receipt)), "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            member = zipfile.ZipInfo(file.path, EPOCH)
            # Sizes of the server's are its word; of a file that is longer, the archive must still be one.
            with archive.open(member, "w", force_zip64=True) as target:
                for piece in server.read(source, file):
                    target.write(piece)
                    fetched += len(piece)
                    told(fetched)
    return fetched


def _publish(sessions: Sessions, held: Claimed, source: Source, stored: Stored) -> int:
    with transaction(sessions) as session:
        # Fetching takes minutes, in which whoever asked may have lost the right.
        require_still(session, _authority(held), held.model)
        version, new = registry.publish(
            session,
            held.model,
            format=Format.MLFLOW.value,
            digest=stored.digest,
            size_bytes=stored.size_bytes,
            uploaded_by=held.requested_by,
        )
        if not imports.succeed(session, held, version.number, source.to_json()):
            raise ImportLost
        if new:
            version.source = source.to_json()
            schedule.create(session, held.model, version.number)
        return version.number


def _authority(held: Claimed) -> UploadAuthority:
    if held.authority is None:
        raise UploadWithdrawn("it was asked for under a release that did not note by what right; ask again")
    return UploadAuthority.from_json(held.requested_by, held.authority)


class _Written:
    """What a zip archive is written to where nobody can go back in it."""

    def __init__(self, receipt: Receipt) -> None:
        self._receipt = receipt

    def write(self, data: bytes) -> int:
        self._receipt.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back here."""
