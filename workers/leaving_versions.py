"""Versions that are leaving: each stays UNLOADING for as long as jobs that were submitted to it wait or run."""

from __future__ import annotations

import logging

from model_store import line_up
from model_store.database import Sessions, transaction
from workers import waiting

log = logging.getLogger(__name__)

VERSIONS_A_RUN = 100


class LeavingVersions:
    """Looks at a page of them a run, and goes on where the last run ended."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._seen_to = ("", 0)

    def end(self) -> None:
        """Ends those that nothing waits for any more. Raises DatabaseUnavailable."""
        with transaction(self._sessions, write=False) as session:
            page = line_up.leaving(session, VERSIONS_A_RUN, self._seen_to)
            free = [place for place in page if not waiting.unfinished(session, *place)]
        self._seen_to = page[-1] if len(page) == VERSIONS_A_RUN else ("", 0)
        for model, number in free:
            with transaction(self._sessions) as session:
                ended = line_up.end(session, model, number)
            if ended:
                log.info("version %d of model %s has left: nothing waits for it", number, model)
