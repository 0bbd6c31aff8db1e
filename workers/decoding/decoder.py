"""The parent side of decoding: a runner that reads one file, and gives its rows as tensors, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Self

from model_store.receipts import full_disk
from model_store.signature import Signature, Tensors
from workers.decoding.rows import MESSAGE_CHARACTERS
from workers.errors import LockdownUnavailable, PredictionFailed, RunnerFailed, UploadRefused
from workers.files.contract import FileInvalid
from workers.runner.limits import Limits
from workers.runner.process import Runner
from workers.settings import RunnerSettings

FILE = "file"
PARQUET, IMAGES, RECORDINGS, TEXTS = "parquet", "images", "recordings", "texts"
# Arrow and Pillow with the largest batch that they may give, several times over; it is address space.
MEMORY_BYTES = 2 * 1024**3
# A batch takes milliseconds; a row group with pages of a gigabyte takes seconds, if it fits into memory.
CALL_SECONDS = 60.0
MOST_ROWS = 100_000_000
# The file's own doing: another attempt would meet the same limit, where other ends of a runner may be the machine's.
OWN_DOING = {
    "runner_memory": (
        "file_memory",
        "reading the file takes more memory than it may have: write it with smaller row groups and rows",
    ),
    "runner_timeout": ("file_timeout", "reading the file takes too long: write it with smaller row groups and rows"),
}


class DecodingFailed(FileInvalid):
    """A file that cannot be read, or not on; `code` on the instance says why."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows that follow each other: tensors of those that could be read, and what is wrong with the others.

    `wrong` counts from the batch's first row.
    """

    first_row: int
    rows: int
    wrong: dict[int, str]
    tensors: Tensors


class Decoder:
    """One file of a format that only a runner may read; a context manager.

    Raises DecodingFailed where the file is refused, LockdownUnavailable where no runner may read it, StoreFull.
    """

    def __init__(  # noqa: PLR0913 - how much at a time, and how images are read
        self,
        settings: RunnerSettings,
        kind: str,
        file: BinaryIO,
        signature: Signature,
        *,
        batch_rows: int,
        batch_bytes: int,
        pixels: str | None = None,
        specification: str | None = None,
    ) -> None:
        """`kind` says what the file is, `pixels` a value of Pixels where it is needed; it is copied to the runner.

        `specification` is that of the version's input, as JSON, by which what is in an archive is read.

        A batch has at most so many rows and bytes of numbers, but always a row.
        """
        self._kind = kind
        self._signature = signature
        self._batch_rows = min(batch_rows, _rows_within(signature, batch_bytes))
        self._batch_bytes = batch_bytes
        limits = Limits(MEMORY_BYTES, file_bytes=0, open_files=settings.runner_open_files)
        self._runner = Runner(settings, limits=limits)
        try:
            file.seek(0)
            with full_disk():
                self._runner.give_bytes(FILE, file)
            terms = {"signature": signature.to_json(), "batch_rows": self._batch_rows, "pixels": pixels}
            terms["specification"] = specification
            answer, _ = self._call("open", {"file": FILE, "most_rows": MOST_ROWS, **terms})
            self.rows = _count(answer.get("rows"), MOST_ROWS)
        except BaseException:  # closed and raised again
            self._runner.close()
            raise

    def batches(self, first_row: int) -> Iterator[Decoded]:
        """The rows from one on, to the last; none is empty. Raises as the class does."""
        while first_row < self.rows:
            terms = {"start": first_row, "batch_rows": self._batch_rows, "batch_bytes": self._batch_bytes}
            answer, tensors = self._call("read", terms)
            decoded = self._checked(first_row, answer, tensors)
            yield decoded
            first_row += decoded.rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def _call(self, verb: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], Tensors]:
        command = f"decoding_{verb}_{self._kind}"
        try:
            return self._runner.call(command, arguments, {}, timeout_seconds=CALL_SECONDS)
        except LockdownUnavailable:
            raise
        except RunnerFailed as error:
            otherwise = (error.code, "the process that read the file ended unexpectedly")
            code, message = OWN_DOING.get(error.code, otherwise)
            raise DecodingFailed(message, code=code) from error
        except UploadRefused as error:
            raise DecodingFailed(error.message, code=error.code) from error
        except PredictionFailed as error:
            raise DecodingFailed("the file cannot be read", code=FileInvalid.code) from error

    def _checked(self, first_row: int, answer: dict[str, Any], tensors: Tensors) -> Decoded:
        """What the child answered, which is not trusted: a file may have taken it over."""
        rows = _count(answer.get("rows"), min(self._batch_rows, self.rows - first_row))
        wrong = _reasons(answer.get("wrong"), rows)
        if not rows:
            raise _untrue()
        for spec in self._signature.inputs:
            tensor = tensors.get(spec.name)
            shape = (rows - len(wrong), *spec.shape[1:])
            if tensor is None or tensor.shape != shape or tensor.dtype != spec.numpy_dtype():
                raise _untrue()
        return Decoded(first_row, rows, wrong, {spec.name: tensors[spec.name] for spec in self._signature.inputs})


def _reasons(listed: object, rows: int) -> dict[int, str]:
    if not isinstance(listed, list) or not all(isinstance(one, list) and len(one) == 2 for one in listed):
        raise _untrue()
    return {_count(row, rows - 1): str(message)[:MESSAGE_CHARACTERS] for row, message in listed}


def _count(found: object, most: int) -> int:
    if type(found) is not int or not 0 <= found <= most:
        raise _untrue()
    return found


def _untrue() -> DecodingFailed:
    return DecodingFailed("the file has fewer rows than it announces, or cannot be read", code=FileInvalid.code)


def _rows_within(signature: Signature, size_bytes: int) -> int:
    """How many instances have so many bytes of numbers; open sizes, which every format refuses, count as one."""
    each = 0
    for spec in signature.inputs:
        numbers = 1
        for size in spec.shape[1:]:
            numbers *= size or 1
        each += numbers * spec.numpy_dtype().itemsize
    return max(1, size_bytes // max(each, 1))
