"""Uploads in pieces that become whole: each is put together by one request at a time, whoever asks for it meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from model_store.errors import SluiceError


class UploadBusy(SluiceError):
    """The whole file is there, and another request makes a version of it at this moment."""

    status = 503
    code = "upload_busy"


class Assembling:
    """Those that this gateway puts together; used by the event loop only.

    Without it a request of a few bytes would cost the disk a whole file, as often as it is sent.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()

    @contextlib.contextmanager
    def one(self, upload_id: str) -> Iterator[None]:
        """While this upload is put together; raises UploadBusy."""
        if upload_id in self._ids:
            raise UploadBusy("the file is whole, and is being made a version: ask again", retry_after_seconds=1)
        self._ids.add(upload_id)
        try:
            yield
        finally:
            self._ids.discard(upload_id)
