"""Files of clients in the store: read from anywhere in them, and results that grow by whole segments."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifacts import Artifacts
from model_store.errors import ArtifactCorrupt, ArtifactMissing, ArtifactTooLarge
from model_store.files import Part, PartWriter, delete_file, open_file, path_of, read_part
from model_store.sealed_files import PIECE_BYTES, AtRest
from model_store.sealing import SealingKeys

KEYS = AtRest(SealingKeys([b"o" * 32]))


@pytest.fixture(params=["plain", "sealed"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "store", 10**9, KEYS if request.param == "sealed" else None)


def keep(artifacts: Artifacts, name: str, data: bytes) -> None:
    with artifacts.receive_file(name, 10**9) as receipt:
        receipt.write(data)
        receipt.commit()


@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 700_000])
def test_a_file_is_read_from_anywhere_as_if_it_were_in_memory(artifacts: Artifacts, size: int):
    chance = random.Random(size)  # noqa: S311 - the same moves in every run
    data = chance.randbytes(size)
    keep(artifacts, "file_a", data)

    with open_file(artifacts, "file_a") as file:
        assert file.read() == data
        assert file.seek(0, io.SEEK_END) == size
        for _ in range(30):
            start, length = chance.randrange(size + 10), chance.randrange(300_000)
            file.seek(start)
            assert file.read(length) == data[start : start + length]
            assert file.tell() == max(start, min(start + length, size))


def test_a_sealed_file_is_no_readable_one_and_cannot_take_the_place_of_another(tmp_path: Path):
    artifacts = Artifacts(tmp_path, 10**9, KEYS)
    keep(artifacts, "file_a", b"a secret row\n" * 1000)
    keep(artifacts, "file_b", b"another\n")
    assert b"secret" not in path_of(artifacts, "file_a").read_bytes()

    path_of(artifacts, "file_b").unlink()
    path_of(artifacts, "file_a").rename(path_of(artifacts, "file_b"))

    with pytest.raises(ArtifactCorrupt):
        open_file(artifacts, "file_b")


@pytest.mark.parametrize("cut", [1, PIECE_BYTES + 16, PIECE_BYTES + 17])
def test_a_sealed_file_that_was_cut_is_noticed_wherever_it_is_read(tmp_path: Path, cut: int):
    artifacts = Artifacts(tmp_path, 10**9, KEYS)
    keep(artifacts, "file_a", b"x" * (3 * PIECE_BYTES))
    path = path_of(artifacts, "file_a")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-cut])

    with pytest.raises(ArtifactCorrupt):
        open_file(artifacts, "file_a").read(1)


def test_a_file_over_its_limit_leaves_nothing(artifacts: Artifacts):
    with pytest.raises(ArtifactTooLarge), artifacts.receive_file("file_a", 10) as receipt:
        receipt.write(b"12345678901")

    with pytest.raises(ArtifactMissing):
        open_file(artifacts, "file_a")
    assert [path for path in artifacts.root.rglob("*") if path.is_file()] == []


# What is appended are lines of JSON: none begins like something encrypted.
LINES = st.binary(max_size=50).map(lambda text: b"{" + text)


@given(segments=st.lists(LINES, max_size=6), torn=st.binary(max_size=40), sealed=st.booleans())
def test_what_of_a_part_counts_is_read_whatever_a_killed_writer_left_behind_it(
    tmp_path_factory: pytest.TempPathFactory, segments: list[bytes], torn: bytes, sealed: bool
):
    artifacts = Artifacts(tmp_path_factory.mktemp("store"), 10**9, KEYS if sealed else None)
    with PartWriter(artifacts, "file_a.1") as writer:
        for segment in segments:
            writer.append(segment)
        counted = writer.written
    with path_of(artifacts, "file_a.1").open("ab") as file:
        file.write(torn)

    assert list(read_part(artifacts, counted)) == segments
    assert counted.size_bytes == sum(map(len, segments))


def test_a_part_is_written_by_one_writer_only_and_a_cut_one_is_noticed(artifacts: Artifacts):
    with PartWriter(artifacts, "file_a.1") as writer:
        writer.append(b"one\n")
        writer.append(b"two\n")
        counted = writer.written
    with pytest.raises(FileExistsError):
        PartWriter(artifacts, "file_a.1")
    path = path_of(artifacts, "file_a.1")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ArtifactCorrupt):
        list(read_part(artifacts, counted))
    delete_file(artifacts, "file_a.1")
    with pytest.raises(ArtifactMissing):
        list(read_part(artifacts, counted))
    assert list(read_part(artifacts, Part("file_a.1"))) == []
