"""The formats that only a runner may read: Parquet, and zip archives of images, recordings and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

from model_store.errors import SluiceError
from model_store.signature import STRING, Signature, TensorSpec
from workers.decoding.decoder import IMAGES, PARQUET, RECORDINGS, TEXTS, Decoded, Decoder, DecodingFailed
from workers.decoding.layout import Pixels
from workers.decoding.recordings import Recording
from workers.errors import InputInvalid, UploadRefused
from workers.files import row_lines
from workers.files.contract import Asked, Chunk, ChunkSize, FileInvalid, Members, Piece
from workers.files.lines import ROW
from workers.files.row_lines import UniformRows
from workers.protocols.contract import Contract
from workers.protocols.file_inputs import AUDIO, TEXT, specified_kind
from workers.runner import frames
from workers.settings import RunnerSettings


class DecodedFormat:
    """Files whose rows a runner turns into tensors; a chunk is one batch of them as a frame.

    `settings` are of runners. A reading that goes on starts a new runner.
    """

    def __init__(
        self, kind: str, pixels: Pixels | None = None, settings: Callable[[], RunnerSettings] = RunnerSettings
    ) -> None:
        self._kind = kind
        self._pixels = pixels
        self._settings = settings

    def chunks(
        self, file: BinaryIO, contract: Contract, size: ChunkSize, checkpoint: Members | None
    ) -> Iterator[Chunk]:
        first_row = 0 if checkpoint is None else checkpoint[ROW]
        if not isinstance(first_row, int):
            raise FileInvalid("the place where the file was read to is lost")
        with self._decoder(file, contract, min(size.rows, contract.max_instances), size.size_bytes) as decoder:
            for batch in decoder.batches(first_row):
                behind: Members = {ROW: batch.first_row + batch.rows}
                yield Chunk(batch.first_row, batch.rows, _packed(batch), behind, total=decoder.rows)

    def total(self, _file: BinaryIO, _contract: Contract, _beat: Callable[[], None]) -> int | None:
        """Only a runner may look at such a file, and where it is uploaded there are none."""
        return None

    def pieces(self, asked: Asked, contract: Contract) -> list[Piece]:
        header, tensors = frames.unpacked(asked.data)
        wrong = {int(row): str(message) for row, message in header["wrong"]}
        found: list[Piece] = []
        begun, taken = 0, 0
        # Those that follow each other without a wrong row between them are one piece.
        for row in [*sorted(wrong), asked.rows]:
            if row > begun:
                rows = {
                    spec.name: tensors[spec.name][taken : taken + row - begun] for spec in contract.signature.inputs
                }
                found.append(UniformRows(asked.first_row + begun, rows, row - begun))
                taken += row - begun
            if row in wrong:
                found.append(row_lines.refused(asked.first_row + row, None, InputInvalid(wrong[row])))
            begun = row + 1
        return found

    def refusals(self, asked: Asked, error: SluiceError) -> bytes:
        return row_lines.refusals(asked, error)

    def _decoder(self, file: BinaryIO, contract: Contract, batch_rows: int, batch_bytes: int) -> Decoder:
        return Decoder(
            self._settings(),
            self._kind,
            file,
            contract.signature,
            batch_rows=batch_rows,
            batch_bytes=batch_bytes,
            pixels=self._pixels,
            # Who says the scale says all of it.
            specification=contract.input_specification if self._pixels is None else None,
        )


class ArchivedFiles(DecodedFormat):
    """Zip archives of what the version's input takes: recordings or texts where it says so, else images."""

    def __init__(self, settings: Callable[[], RunnerSettings] = RunnerSettings) -> None:
        super().__init__(IMAGES, settings=settings)

    def _decoder(self, file: BinaryIO, contract: Contract, batch_rows: int, batch_bytes: int) -> Decoder:
        kind, spec = archived_as(contract)
        if spec is None:
            return super()._decoder(file, contract, batch_rows, batch_bytes)
        said = contract.input_specification if kind == RECORDINGS or specified_kind(contract, spec) == TEXT else None
        return Decoder(
            self._settings(),
            kind,
            file,
            Signature((spec,), contract.signature.outputs),
            batch_rows=batch_rows,
            batch_bytes=batch_bytes,
            specification=said,
        )


def archived_as(contract: Contract) -> tuple[str, TensorSpec | None]:
    """What files of an archive are to a version, and its only input with all sizes known; None where they are images.

    Raises DecodingFailed where recordings, or texts, are no instances of it.
    """
    [spec, *others] = contract.signature.inputs
    if others:
        return IMAGES, None
    if spec.dtype == STRING:
        if not spec.batched or any(size not in (None, 1) for size in spec.shape[1:]):
            raise DecodingFailed(f"a text is one string, and the version takes {list(spec.shape)}", code="texts_unfit")
        return TEXTS, replace(spec, shape=(None, *(1 for _ in spec.shape[1:])))
    if specified_kind(contract, spec) != AUDIO:
        return IMAGES, None
    try:
        recording = Recording.of(spec, contract.input_specification or "")
    except UploadRefused as error:
        raise DecodingFailed(error.message, code=error.code) from error
    if recording.samples is None:
        raise DecodingFailed(
            "recordings of a batch have one length: say `seconds` in the input specification", code="recordings_unfit"
        )
    return RECORDINGS, replace(spec, shape=(None, recording.samples, *spec.shape[2:]))


def _packed(batch: Decoded) -> bytes:
    return b"".join(frames.encode({"wrong": [[row, why] for row, why in batch.wrong.items()]}, batch.tensors))


def parquet() -> DecodedFormat:
    """The format `parquet`."""
    return DecodedFormat(PARQUET)


def files() -> DecodedFormat:
    """The format `files`, of whatever a version takes."""
    return ArchivedFiles()


def images() -> DecodedFormat:
    """The format `images`, for versions that take bytes or have an input specification."""
    return DecodedFormat(IMAGES)


def images_of_units() -> DecodedFormat:
    """The format `images-0-1`."""
    return DecodedFormat(IMAGES, Pixels.UNIT)


def images_of_bytes() -> DecodedFormat:
    """The format `images-0-255`."""
    return DecodedFormat(IMAGES, Pixels.BYTES)
