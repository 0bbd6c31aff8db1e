"""The store in a bucket, against a real server that speaks S3: whole or nothing, verified, bounded, clear when away."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifacts import Artifacts
from model_store.errors import ArtifactCorrupt, ArtifactMissing, StoreEncrypted, StoreFull, StoreUnavailable
from model_store.files import PartWriter, delete_file, old_files, open_file, read_part
from model_store.payloads import old_payloads, open_payload
from model_store.receipts import Stored
from model_store.stores import reading
from model_store.stores.bucket import Bucket
from model_store.stores.reading import RangedObject
from model_store.stores.removals import Removals
from model_store.stores.s3 import S3Store
from monitoring.metrics import STORE_DAMAGED
from tests.chaos.proxy import Mode
from tests.s3_kit import S3Server, refusing, s3_server, settings_for

KEY, NEWER_KEY = "k" * 43, "n" * 43


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(params=["plain", "sealed"])
def pair(request: pytest.FixtureRequest, server: S3Server, tmp_path: Path) -> tuple[Artifacts, Artifacts]:
    """The same store on two machines."""
    more = {"storage_key": KEY} if request.param == "sealed" else {}
    one, other = (server.artifacts(tmp_path / name, prefix(tmp_path), **more) for name in ("one", "other"))
    return one, other


@pytest.fixture
def artifacts(server: S3Server, tmp_path: Path) -> Artifacts:
    return server.artifacts(tmp_path / "one", prefix(tmp_path))


def prefix(folder: Path) -> str:
    """A place in the bucket of one test's own."""
    return f"{folder.parent.name}-{folder.name}"


def store(artifacts: Artifacts, data: bytes) -> Stored:
    with artifacts.receive() as receipt:
        receipt.write(data)
        return receipt.commit()


def contents(artifacts: Artifacts, digest: str) -> bytes:
    with artifacts.opened(digest) as path:
        return path.read_bytes()


def bucket_of(artifacts: Artifacts) -> Bucket:
    assert isinstance(artifacts.store, S3Store)
    return artifacts.store._bucket


def keys_of(artifacts: Artifacts) -> list[str]:
    return [found.key for found in bucket_of(artifacts).objects("")]


def damaged(place: str) -> float:
    return STORE_DAMAGED.labels(place)._value.get()


def removed(artifacts: Artifacts) -> None:
    assert isinstance(artifacts.store, S3Store)
    artifacts.store.settle()


def test_what_one_machine_stores_every_other_one_reads(pair: tuple[Artifacts, Artifacts]):
    one, other = pair
    stored = store(one, b"the weights" * 10_000)
    one.put_payload("job.input", b'{"instances": [1]}')
    with one.receive_file("file_a", 10**6) as receipt:
        receipt.write(b"row one\nrow two\n")
        receipt.commit()

    assert contents(other, stored.digest) == b"the weights" * 10_000
    assert list(other.digests()) == [stored.digest]
    assert other.exists(stored.digest)
    assert other.get_payload("job.input") == b'{"instances": [1]}'
    with open_file(other, "file_a") as file:
        file.seek(4)
        assert file.read(3) == b"one"
    assert not any((one.root / "incoming").iterdir())


def test_nothing_in_an_encrypted_bucket_can_be_read(server: S3Server, tmp_path: Path):
    artifacts = server.artifacts(tmp_path, prefix(tmp_path), storage_key=KEY)
    data = b"somebody's secret " * 100_000
    digest = store(artifacts, data).digest
    artifacts.put_payload("a.input", data)
    with PartWriter(artifacts, "file_a.1") as part:
        part.append(data)

    bucket = bucket_of(artifacts)
    for key in keys_of(artifacts):
        assert b"secret" not in bucket.read(key, 0, 10**8)
    assert b"secret" not in artifacts.path(digest).read_bytes()
    with open_payload(artifacts, "a.input") as payload:
        payload.seek(-7, io.SEEK_END)
        assert payload.read() == b"secret "


def test_a_process_without_the_key_writes_nothing_into_an_encrypted_bucket(server: S3Server, tmp_path: Path):
    store(server.artifacts(tmp_path / "one", prefix(tmp_path), storage_key=KEY), b"sealed")
    without = server.artifacts(tmp_path / "other", prefix(tmp_path))
    with pytest.raises(StoreEncrypted):
        without.put_payload("a", b"readable")
    assert not [key for key in keys_of(without) if "payloads" in key]


def test_artifacts_are_sealed_again_under_a_newer_key(server: S3Server, tmp_path: Path):
    digest = store(server.artifacts(tmp_path / "one", prefix(tmp_path)), b"plain once").digest
    newest = server.artifacts(tmp_path / "two", prefix(tmp_path), storage_key=f"{NEWER_KEY} {KEY}")

    assert newest.seal(digest)
    assert not newest.seal(digest)

    alone = server.artifacts(tmp_path / "three", prefix(tmp_path), storage_key=NEWER_KEY)
    assert contents(alone, digest) == b"plain once"


def test_the_segments_of_a_result_are_read_in_order_and_go_together(pair: tuple[Artifacts, Artifacts]):
    one, other = pair
    with PartWriter(one, "file_a.1") as part:
        for number in range(12):
            part.append(b"%d\n" % number)
        counted = part.written
        part.append(b"not counted yet\n")

    assert list(read_part(other, counted)) == [b"%d\n" % number for number in range(12)]
    with pytest.raises(FileExistsError):
        PartWriter(other, "file_a.1")
    assert list(old_files(other, -60)) == ["file_a.1"]
    delete_file(other, "file_a.1")
    removed(other)
    assert list(old_files(one, -60)) == []
    with pytest.raises(ArtifactMissing):
        list(read_part(one, counted))


def test_what_is_deleted_is_gone_and_what_was_never_there_is_missing(artifacts: Artifacts):
    digest = store(artifacts, b"model").digest
    for number in range(20):
        artifacts.put_payload(f"{number}.input", b"x")
    artifacts.delete(digest)
    for number in range(19):
        artifacts.delete_payload(f"{number}.input")
    removed(artifacts)

    assert not artifacts.exists(digest)
    assert list(old_payloads(artifacts, -60)) == ["19.input"]
    with pytest.raises(ArtifactMissing):
        contents(artifacts, digest)
    with pytest.raises(ArtifactMissing):
        artifacts.get_payload("0.input")
    with pytest.raises(ArtifactMissing):
        open_file(artifacts, "file_z")


def test_a_flipped_byte_in_the_cache_is_found_reported_and_fetched_again(
    artifacts: Artifacts, caplog: pytest.LogCaptureFixture
):
    digest = store(artifacts, b"weights" * 1000).digest
    flip(artifacts.path(digest))
    before = damaged("cache")

    assert contents(artifacts, digest) == b"weights" * 1000

    assert damaged("cache") == before + 1
    assert f"damaged in the cache: artifact {digest}" in caplog.text
    assert artifacts.path(digest).read_bytes() == b"weights" * 1000


def test_a_flipped_byte_in_the_bucket_is_an_error_until_the_bytes_are_stored_again(
    server: S3Server, artifacts: Artifacts, tmp_path: Path
):
    data = b"weights" * 1000
    digest = store(artifacts, data).digest
    bucket_of(artifacts).put(f"blobs/{digest[:2]}/{digest}", data[:-1] + b"S")
    elsewhere = server.artifacts(tmp_path / "elsewhere", prefix(tmp_path))
    before = damaged("store")

    with pytest.raises(ArtifactCorrupt, match=digest):
        contents(elsewhere, digest)

    assert damaged("store") == before + 2
    assert not elsewhere.path(digest).exists()
    store(artifacts, data)
    assert contents(elsewhere, digest) == data


def test_the_cache_keeps_what_was_used_last_within_its_bound(server: S3Server, tmp_path: Path):
    artifacts = server.artifacts(tmp_path, prefix(tmp_path), store_cache_bytes=2500)
    first, second = (store(artifacts, letter * 1000).digest for letter in (b"a", b"b"))
    os.utime(artifacts.path(second), (1, 1))
    contents(artifacts, first)
    third = store(artifacts, b"c" * 1000).digest
    large = store(artifacts, b"d" * 3000).digest

    assert [artifacts.path(digest).exists() for digest in (first, second, third, large)] == [True, False, True, False]
    assert contents(artifacts, large) == b"d" * 3000
    assert contents(artifacts, second) == b"b" * 1000


def test_a_copy_that_another_process_makes_room_with_stays_readable_while_it_is_open(artifacts: Artifacts):
    digest = store(artifacts, b"weights").digest
    with artifacts.opened(digest) as path:
        artifacts.path(digest).unlink()
        assert path.read_bytes() == b"weights"


def test_a_process_that_was_forked_has_connections_of_its_own(artifacts: Artifacts):
    store(artifacts, b"before the fork")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            artifacts.put_payload("child", b"1")
            artifacts.delete_payload("nothing")
            removed(artifacts)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert artifacts.get_payload("child") == b"1"


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.BLACK_HOLE])
def test_a_store_that_is_away_is_said_to_be_and_keeps_nobody_waiting_twice(
    server: S3Server, tmp_path: Path, mode: Mode
):
    digest = store(server.artifacts(tmp_path / "one", prefix(tmp_path)), b"at hand").digest
    artifacts = server.artifacts(tmp_path / "one", prefix(tmp_path), store_seconds=1.0)
    with server.failing(mode):
        with pytest.raises(StoreUnavailable) as refused:
            store(artifacts, b"never stored")
        assert refused.value.retry_after_seconds
        # The proxy would let nothing of these through either, but each would take its time.
        for _ in range(1000):
            with pytest.raises(StoreUnavailable):
                artifacts.get_payload("x")
        assert contents(artifacts, digest) == b"at hand"
        artifacts.delete_payload("x")
        removed(artifacts)
    artifacts = server.artifacts(tmp_path / "one", prefix(tmp_path))

    assert [key for key in keys_of(artifacts) if "blobs" in key] == [f"blobs/{digest[:2]}/{digest}"]
    assert not any((artifacts.root / "incoming").iterdir())
    assert contents(artifacts, store(artifacts, b"never stored").digest) == b"never stored"


def test_a_slow_store_only_takes_longer(server: S3Server, artifacts: Artifacts):
    with server.failing(Mode.SLOW):
        digest = store(artifacts, b"s" * 200_000).digest
        artifacts.path(digest).unlink()
        assert contents(artifacts, digest) == b"s" * 200_000


def test_an_upload_in_parts_that_nobody_ended_is_never_seen_and_ended_by_the_sweep(artifacts: Artifacts):
    bucket = bucket_of(artifacts)
    key = f"{bucket._prefix}blobs/aa/{'a' * 64}"
    begun = bucket._call("put", "create_multipart_upload", 20, Key=key)
    bucket._call("put", "upload_part", 20, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"half")

    assert keys_of(artifacts) == []
    assert not artifacts.exists("a" * 64)
    assert artifacts.sweep_incoming(1e10) == 0
    assert artifacts.sweep_incoming(-60) == 1
    assert artifacts.sweep_incoming(-60) == 0


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented")])
def test_a_server_that_does_not_list_uploads_in_parts_does_not_end_the_sweep(tmp_path: Path, status: int, code: str):
    with refusing(status, code) as endpoint:
        artifacts = Artifacts.of(settings_for(endpoint, store_dir=tmp_path))
        (tmp_path / "incoming").mkdir()
        (tmp_path / "incoming" / "left").touch()

        assert artifacts.sweep_incoming(-60) == 1
        # Nor is it taken for one that is away, to which nobody speaks for a while.
        assert bucket_of(artifacts)._rests_until == 0


@pytest.mark.parametrize("error", [StoreUnavailable("away"), FileNotFoundError("no such page")])
def test_removals_go_on_after_one_that_failed(error: Exception):
    asked: list[list[str]] = []

    def remove(keys: Sequence[str]) -> None:
        asked.append(list(keys))
        if len(asked) == 1:
            raise error

    removals = Removals(remove)
    for key in ("first", "second"):
        removals.add(key)
        removals.finish()

    assert asked == [["first"], ["second"]]


def test_blobs_that_nothing_refers_to_are_swept_unless_they_were_stored_again_meanwhile(artifacts: Artifacts):
    used, unused, again = (store(artifacts, data).digest for data in (b"used", b"unused", b"stored again"))
    # The bucket's clock counts whole seconds.
    time.sleep(2.1)

    def in_use(digest: str) -> bool:
        if digest == again:
            store(artifacts, b"stored again")
        return digest == used

    assert artifacts.sweep_blobs(1.5, in_use) == 1
    assert [artifacts.exists(digest) for digest in (used, unused, again)] == [True, False, True]


def test_credentials_that_the_store_does_not_know_are_refused_at_once():
    with refusing(403, "InvalidAccessKeyId") as endpoint:
        artifacts = Artifacts.of(settings_for(endpoint))
        with pytest.raises(StoreUnavailable, match="InvalidAccessKeyId"):
            list(old_payloads(artifacts, 0))


def test_a_store_that_is_full_says_so(tmp_path: Path):
    with refusing(507, "XMinioStorageFull") as endpoint:
        artifacts = Artifacts.of(settings_for(endpoint, store_dir=tmp_path))
        # An object that is not there is asked for first: this server refuses that as well.
        artifacts.store._agreed = True  # type: ignore[attr-defined]
        with pytest.raises(StoreFull):
            artifacts.put_payload("x", b"y")
    assert not any((tmp_path / "incoming").iterdir())


def test_an_object_that_ends_before_its_size_is_damaged_rather_than_read_as_a_shorter_one():
    file = RangedObject(10, lambda start, end: b"1234567890"[start : min(end, 6)])
    with pytest.raises(ArtifactCorrupt, match="10 bytes"):
        io.BufferedReader(file).read()


def test_a_store_that_is_a_folder_imports_nothing_that_speaks_to_buckets():
    program = (
        "import sys, gateway.app, workers.child\n"
        "from model_store.artifacts import Artifacts\n"
        "from model_store.settings import StoreSettings\n"
        "Artifacts.of(StoreSettings(store_dir='/nonexistent'))\n"
        "print(sorted({'s3fs', 'fsspec', 'aiobotocore', 'model_store.stores.s3'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@given(
    data=st.binary(max_size=300),
    moves=st.lists(st.tuples(st.integers(-400, 400), st.sampled_from([0, 1, 2]), st.integers(0, 350)), max_size=8),
)
def test_an_object_is_read_from_anywhere_as_if_it_were_in_memory(data: bytes, moves: list[tuple[int, int, int]]):
    plain = io.BytesIO(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK_BYTES", 64)
        ranged = io.BufferedReader(RangedObject(len(data), lambda start, end: data[start:end]), 16)
        for offset, whence, size in moves:
            target = max(0, offset + {0: 0, 1: plain.tell(), 2: len(data)}[whence])
            assert ranged.seek(target) == plain.seek(target)
            assert ranged.read(size) == plain.read(size)


def flip(path: Path) -> None:
    path.chmod(0o600)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
