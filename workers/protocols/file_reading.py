"""What reads files for the dialects: a collaborator of theirs, since the decoders of images live in runners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model_store.errors import SluiceError
from model_store.signature import Tensor, TensorSpec


@dataclass(frozen=True, slots=True)
class Given:
    """Files that came as the instances of one input; `specification` is the input's, as JSON, of this `kind`."""

    kind: str
    spec: TensorSpec
    specification: str
    files: Sequence[bytes]


class FileUnfit(Exception):
    """One file, the `number`th, is no instance of its input; the message says why."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class FilesAside(SluiceError):
    """The files of a request are not read now, but once others are answered; it stands for no answer."""


class FileReader(Protocol):
    """Makes tensors of files."""

    def read(self, given: Given) -> Tensor:
        """The files as instances, shape (files, *instance), in the input's dtype.

        Raises FileUnfit, and DecodingUnavailable where no file can be read here at all.
        """
        ...


class UnreadFiles:
    """Stands for a reader where requests are checked and not run: the tensor has the number of files, and no contents.

    The beginning of each file is looked at by the dialects themselves.
    """

    def read(self, given: Given) -> Tensor:
        sizes = [1 if size is None else size for size in given.spec.shape[1:]]
        # One number seen as all of them: it takes no memory, however many files announce whatever sizes.
        return np.broadcast_to(np.zeros((), given.spec.numpy_dtype()), (len(given.files), *sizes))


UNREAD = UnreadFiles()
