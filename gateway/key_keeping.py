"""Keeping signing keys: the first one at the start, the next one when it is time, and the end of old private parts."""

from __future__ import annotations

import logging
import threading

from auth import signing_keys
from auth.errors import MasterKeyWrong
from gateway.settings import GatewaySettings
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from model_store.sealing import SealingKeys
from workers.roles import hold

log = logging.getLogger(__name__)

ROLE = "keys"
PAUSE_SECONDS = 60


class KeyKeeping:
    """Looks at the keys once a minute; of several gateways, one at a time does it."""

    def __init__(self, sessions: Sessions, master_keys: SealingKeys, settings: GatewaySettings) -> None:
        self._sessions = sessions
        self._master_keys = master_keys
        self._settings = settings
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Make the first key where there is none; raises DatabaseUnavailable, KeysInvalid."""
        with transaction(self._sessions) as session:
            signing_keys.ensure(session, self._master_keys, self._settings.keys_dir)

    def start(self) -> None:
        """Keep looking, in a thread."""
        self._thread = threading.Thread(target=self._keep, name="keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def look(self) -> None:
        """Look once; raises DatabaseUnavailable, MasterKeyWrong."""
        settings = self._settings
        with transaction(self._sessions) as session:
            if hold(session, ROLE, settings.gateway_name, PAUSE_SECONDS):
                signing_keys.keep(
                    session,
                    self._master_keys,
                    most_days=settings.key_days,
                    publish_seconds=settings.key_publish_seconds,
                )

    def _keep(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                self.look()
            except DatabaseUnavailable:
                log.warning("the database does not answer; signing keys are looked at again in a minute")
            except MasterKeyWrong as error:
                log.error("signing keys are not rotated: %s", error)  # noqa: TRY400 - the trace says nothing more
            except Exception:  # the thread's edge: keys must go on being rotated
                log.exception("signing keys could not be looked at")
