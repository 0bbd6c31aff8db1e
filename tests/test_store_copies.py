"""A store copied to another one: a folder into a bucket and back, encrypted or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.artifacts import Artifacts
from model_store.files import PartWriter, open_file, read_part
from model_store.settings import StoreSettings
from model_store.stores.copying import copy_store
from tests.s3_kit import S3Server, s3_server

KEY = "k" * 43


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_a_folder_is_copied_into_a_bucket_and_back(server: S3Server, tmp_path: Path, sealed: bool):
    key = {"storage_key": KEY} if sealed else {}
    folder = Artifacts.of(StoreSettings(store_dir=tmp_path / "folder", **key))
    bucket = server.artifacts(tmp_path / "near", f"copied-{sealed}", **key)
    back = Artifacts.of(StoreSettings(store_dir=tmp_path / "back", **key))
    with folder.receive() as receipt:
        receipt.write(b"weights" * 10_000)
        digest = receipt.commit().digest
    folder.put_payload("job.input", b"{}")
    with folder.receive_file("file_a", 100) as receipt:
        receipt.write(b"rows")
        receipt.commit()
    with PartWriter(folder, "file_b.1") as part:
        part.append(b"one\n")
        part.append(b"two\n")
        counted = part.written

    first = copy_store(folder.store, bucket.store, lambda _: None)
    again = copy_store(folder.store, bucket.store, lambda _: None)
    copy_store(bucket.store, back.store, lambda _: None)

    assert (first.files, first.kept, again.kept) == (4, 0, 3)
    for copied in (bucket, back):
        with copied.opened(digest) as path:
            assert path.read_bytes() == b"weights" * 10_000
        assert copied.get_payload("job.input") == b"{}"
        assert list(read_part(copied, counted)) == [b"one\n", b"two\n"]
        with open_file(copied, "file_a") as file:
            assert file.read() == b"rows"
