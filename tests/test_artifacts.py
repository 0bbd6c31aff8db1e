"""The artifact store: atomic, verified, bounded, and honest about a full disk."""

from __future__ import annotations

import hashlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifacts import Artifacts, Receipt, Stored
from model_store.errors import ArtifactCorrupt, ArtifactEmpty, ArtifactMissing, ArtifactTooLarge, StoreFull
from model_store.payloads import old_payloads

LIMIT = 1000


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "store", LIMIT)


@pytest.fixture
def small_files() -> Iterator[int]:
    """Files over 64 KiB cannot be written by this process: the system refuses as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield 64 * 1024
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(artifacts: Artifacts, digest: str) -> bytes:
    with artifacts.opened(digest) as path:
        return path.read_bytes()


def store(artifacts: Artifacts, data: bytes) -> Stored:
    with artifacts.receive() as receipt:
        receipt.write(data)
        return receipt.commit()


def files_in(artifacts: Artifacts) -> list[Path]:
    return sorted(path.relative_to(artifacts.root) for path in artifacts.root.rglob("*") if path.is_file())


@given(chunks=st.lists(st.binary(max_size=200), max_size=10))
def test_what_comes_in_pieces_is_kept_under_the_digest_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
):
    artifacts = Artifacts(tmp_path_factory.mktemp("store"), LIMIT)
    whole = b"".join(chunks)
    try:
        with artifacts.receive() as receipt:
            for chunk in chunks:
                receipt.write(chunk)
            stored = receipt.commit()
    except ArtifactEmpty:
        assert whole == b""
    except ArtifactTooLarge:
        assert len(whole) > LIMIT
    else:
        assert stored == Stored(hashlib.sha256(whole).hexdigest(), len(whole))
        assert contents(artifacts, stored.digest) == whole
        assert files_in(artifacts) == [Path("blobs", stored.digest[:2], stored.digest)]
        return
    assert files_in(artifacts) == []


def test_a_file_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(artifacts: Artifacts):
    assert store(artifacts, b"x" * LIMIT).size_bytes == LIMIT
    with pytest.raises(ArtifactTooLarge, match="1000 bytes"):
        store(artifacts, b"y" * (LIMIT + 1))
    assert len(files_in(artifacts)) == 1


def test_an_upload_that_is_broken_off_leaves_nothing(artifacts: Artifacts):
    with artifacts.receive() as receipt:
        receipt.write(b"the first half")
        assert len(files_in(artifacts)) == 1
    assert files_in(artifacts) == []


def test_the_same_bytes_are_kept_once_and_heal_a_damaged_file(artifacts: Artifacts):
    first = store(artifacts, b"model")
    path = artifacts.path(first.digest)
    path.chmod(0o600)
    path.write_bytes(b"modem")
    assert store(artifacts, b"model") == first
    assert contents(artifacts, first.digest) == b"model"
    assert len(files_in(artifacts)) == 1


def test_a_stored_file_cannot_be_written_nor_read_by_strangers(artifacts: Artifacts):
    path = artifacts.path(store(artifacts, b"model").digest)
    assert path.stat().st_mode & 0o777 == 0o440


def test_sixteen_writers_of_the_same_bytes_agree(artifacts: Artifacts):
    found: list[Stored] = []
    writers = [threading.Thread(target=lambda: found.append(store(artifacts, b"model"))) for _ in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert len(files_in(artifacts)) == 1


def test_a_file_of_ones_own_is_copied_in_without_a_limit(artifacts: Artifacts, tmp_path: Path):
    source = tmp_path / "variant.onnx"
    source.write_bytes(b"z" * (3 * LIMIT))
    stored = artifacts.add_file(source)
    assert stored.size_bytes == 3 * LIMIT
    assert contents(artifacts, stored.digest) == source.read_bytes()


def test_one_flipped_bit_is_found(artifacts: Artifacts):
    digest = store(artifacts, b"model").digest
    path = artifacts.path(digest)
    path.chmod(0o600)
    path.write_bytes(b"lodel")
    with pytest.raises(ArtifactCorrupt):
        contents(artifacts, digest)


def test_a_symbolic_link_is_refused_even_to_the_right_bytes(artifacts: Artifacts, tmp_path: Path):
    digest = store(artifacts, b"model").digest
    path = artifacts.path(digest)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(ArtifactCorrupt, match="symbolic link"):
        contents(artifacts, digest)


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting_for_a_writer(artifacts: Artifacts):
    digest = store(artifacts, b"model").digest
    artifacts.delete(digest)
    os.mkfifo(artifacts.path(digest))
    with pytest.raises(ArtifactCorrupt, match="regular file"):
        contents(artifacts, digest)


def test_what_is_not_there_is_missing_and_can_be_deleted_twice(artifacts: Artifacts):
    digest = store(artifacts, b"model").digest
    assert artifacts.exists(digest)
    artifacts.delete(digest)
    artifacts.delete(digest)
    assert not artifacts.exists(digest)
    with pytest.raises(ArtifactMissing):
        contents(artifacts, digest)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_digest_names_an_artifact(artifacts: Artifacts, digest: str):
    with pytest.raises(ValueError, match="SHA-256"):
        artifacts.path(digest)


@pytest.mark.parametrize("size_bytes", [1, 100_000])
def test_a_device_without_space_is_said_to_be_full(tmp_path: Path, size_bytes: int):
    # /dev/full is such a device, and its error the real one: at once, or when what was buffered is written.
    device = open("/dev/full", "wb")  # noqa: SIM115 - the receipt closes it
    with Receipt(device, tmp_path / "temporary", None, keep_nothing) as receipt, pytest.raises(StoreFull):
        fill(receipt, b"x" * size_bytes)


def keep_nothing(temporary: Path, digest: str) -> None:
    raise AssertionError(f"{temporary} was never written, so it must not be kept as {digest}")


def fill(receipt: Receipt, data: bytes) -> None:
    receipt.write(data)
    receipt.commit()


def test_a_disk_that_fills_up_on_the_way_keeps_nothing(tmp_path: Path, small_files: int):
    artifacts = Artifacts(tmp_path / "store", 10 * small_files)
    with pytest.raises(StoreFull):
        store(artifacts, b"x" * (2 * small_files))
    with pytest.raises(StoreFull):
        artifacts.put_payload("job", b"x" * (2 * small_files))
    assert files_in(artifacts) == []


def test_payloads_are_kept_by_name_and_replaced_as_wholes(artifacts: Artifacts):
    artifacts.put_payload("job.input", b"first")
    artifacts.put_payload("job.input", b"second")
    assert artifacts.get_payload("job.input") == b"second"
    assert files_in(artifacts) == [Path("payloads/job.input")]
    artifacts.delete_payload("job.input")
    artifacts.delete_payload("job.input")
    with pytest.raises(ArtifactMissing):
        artifacts.get_payload("job.input")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../x", "a" * 201, "a\n", "a\0"])
def test_a_payload_cannot_leave_its_folder(artifacts: Artifacts, name: str):
    with pytest.raises(ValueError, match="payload"):
        artifacts.put_payload(name, b"x")


def make_old(path: Path) -> None:
    os.utime(path, (0, 0))


def test_only_what_dead_writers_left_behind_is_swept(artifacts: Artifacts):
    with artifacts.receive() as living, artifacts.receive() as abandoned:
        living.write(b"living")
        abandoned.write(b"abandoned")
        make_old(abandoned.temporary)
        assert artifacts.sweep_incoming(3600) == 1
        assert contents(artifacts, living.commit().digest) == b"living"


def test_payloads_that_nobody_wrote_lately_are_found(artifacts: Artifacts):
    assert list(old_payloads(artifacts, 3600)) == []
    artifacts.put_payload("new", b"new")
    artifacts.put_payload("old", b"old")
    make_old(artifacts.root / "payloads" / "old")
    assert list(old_payloads(artifacts, 3600)) == ["old"]


def test_blobs_are_swept_when_nothing_refers_to_them_and_nobody_stored_them_lately(artifacts: Artifacts):
    used, unused, fresh = (store(artifacts, data).digest for data in (b"used", b"unused", b"fresh"))
    make_old(artifacts.path(used))
    make_old(artifacts.path(unused))
    assert artifacts.sweep_blobs(3600, lambda digest: digest == used) == 1
    assert [artifacts.exists(digest) for digest in (used, unused, fresh)] == [True, False, True]


def test_bytes_that_are_stored_again_while_they_are_swept_stay(artifacts: Artifacts):
    digest = store(artifacts, b"model").digest
    make_old(artifacts.path(digest))

    def asked(asked_digest: str) -> bool:
        # Between the question and the removal, an upload of the same bytes finds its place.
        store(artifacts, b"model")
        return asked_digest != digest

    assert artifacts.sweep_blobs(3600, asked) == 0
    assert contents(artifacts, digest) == b"model"
    assert len(files_in(artifacts)) == 1
