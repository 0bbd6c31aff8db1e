"""Encryption at rest: nothing of a model, an input or a result lies readable in the store or the database."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.artifacts import Artifacts
from model_store.errors import ArtifactCorrupt, SealBroken, StoreEncrypted
from model_store.payloads import open_payload
from model_store.sealed_files import HEAD_BYTES, PIECE_BYTES, TAG_BYTES, AtRest, is_sealed
from model_store.sealing import SealingKeys
from model_store.settings import StoreSettings
from tests.conftest import RedisServer
from tests.processes import cluster
from tests.system import plain_environment

OLD, NEW = SealingKeys([b"o" * 32]), SealingKeys([b"n" * 32, b"o" * 32])
KEY = "b29vb29vb29vb29vb29vb29vb29vb29vb29vb29vb28"  # 32 times "o"


def encrypted(plain: bytes, at_rest: AtRest | None = None) -> bytes:
    file = io.BytesIO()
    writer = (at_rest or AtRest(OLD)).writer(file)
    for start in range(0, len(plain), 100_000):
        writer.write(plain[start : start + 100_000])
    writer.finish()
    return file.getvalue()


def decrypted(data: bytes, at_rest: AtRest | None = None) -> bytes:
    return b"".join((at_rest or AtRest(OLD)).pieces(io.BytesIO(data)))


def store(folder: Path, keys: SealingKeys | None) -> Artifacts:
    return Artifacts(folder, 10**9, None if keys is None else AtRest(keys))


def put(artifacts: Artifacts, data: bytes) -> str:
    with artifacts.receive() as receipt:
        receipt.write(data)
        return receipt.commit().digest


def contents(artifacts: Artifacts, digest: str) -> bytes:
    with artifacts.opened(digest) as path:
        return path.read_bytes()


def accepted(answer: httpx.Response) -> str:
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_what_is_encrypted_is_decrypted_again(size: int):
    plain = os.urandom(size)
    data = encrypted(plain)
    assert decrypted(data) == plain
    assert len(data) == HEAD_BYTES + size + TAG_BYTES * max(1, -(-size // PIECE_BYTES))


@given(st.data())
def test_no_bit_of_a_file_may_be_changed(data: st.DataObject):
    changed = bytearray(encrypted(b"weights" * 10))
    bit = data.draw(st.integers(8 * 8, len(changed) * 8 - 1))  # without its mark it is a plain file, of another digest
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        decrypted(bytes(changed))


def test_pieces_cannot_be_cut_off_swapped_or_doubled():
    data = encrypted(os.urandom(3 * PIECE_BYTES))
    head, body, size = data[:HEAD_BYTES], data[HEAD_BYTES:], PIECE_BYTES + TAG_BYTES
    first, second, third = body[:size], body[size : 2 * size], body[2 * size :]
    for pieces in (first + second, second + first + third, first + second + third + third, first, b"", first + third):
        with pytest.raises(SealBroken):
            decrypted(head + pieces)


def test_two_files_of_the_same_bytes_have_nothing_in_common():
    one, other = encrypted(b"w" * 1000), encrypted(b"w" * 1000)
    assert one[HEAD_BYTES:] != other[HEAD_BYTES:]
    with pytest.raises(SealBroken):
        decrypted(one[:HEAD_BYTES] + other[HEAD_BYTES:])


def test_an_artifact_keeps_its_name_and_lies_encrypted(tmp_path: Path):
    artifacts = store(tmp_path, OLD)
    digest = put(artifacts, b"the weights of a model" * 10)
    kept = artifacts.path(digest)
    assert digest == put(store(tmp_path / "plain", None), b"the weights of a model" * 10)
    assert b"weights" not in kept.read_bytes()
    assert is_sealed(io.BytesIO(kept.read_bytes()))
    assert contents(artifacts, digest) == b"the weights of a model" * 10


def test_one_flipped_bit_another_file_and_another_key_are_corrupt(tmp_path: Path):
    artifacts = store(tmp_path, OLD)
    digest, other = put(artifacts, b"one"), put(artifacts, b"other")
    for wrong in (None, SealingKeys([b"x" * 32])):
        with pytest.raises(ArtifactCorrupt):
            contents(store(tmp_path, wrong), digest)
    data = artifacts.path(digest).read_bytes()
    for changed in (data[:-1] + bytes([data[-1] ^ 1]), artifacts.path(other).read_bytes(), data[:-3], b""):
        artifacts.path(digest).chmod(0o600)
        artifacts.path(digest).write_bytes(changed)
        with pytest.raises(ArtifactCorrupt):
            contents(artifacts, digest)


def test_a_payload_is_good_under_its_own_name_only(tmp_path: Path):
    artifacts = store(tmp_path, OLD)
    artifacts.put_payload("a.input", b'{"instances": [1]}')
    assert b"instances" not in (tmp_path / "payloads" / "a.input").read_bytes()
    assert artifacts.get_payload("a.input") == b'{"instances": [1]}'
    (tmp_path / "payloads" / "a.input").rename(tmp_path / "payloads" / "b.input")
    with pytest.raises(ArtifactCorrupt):
        artifacts.get_payload("b.input")
    with pytest.raises(ArtifactCorrupt, match="SLUICE_STORAGE_KEY"):
        store(tmp_path, None).unsealed("a", artifacts.sealed("a", b"{}"))


def test_a_store_can_be_encrypted_later_and_under_another_key_while_it_is_read(tmp_path: Path):
    plain = store(tmp_path, None)
    digests = [put(plain, bytes([number]) * 1000) for number in range(3)]
    old, new = store(tmp_path, OLD), store(tmp_path, NEW)
    assert contents(old, digests[0]) == bytes(1000)
    assert [old.seal(digest) for digest in digests] == [True] * 3
    assert [old.seal(digest) for digest in digests] == [False] * 3
    with old.opened(digests[1]) as path:
        assert [new.seal(digest) for digest in old.digests()] == [True] * 3
        assert path.read_bytes() == b"\x01" * 1000
    newest = store(tmp_path, SealingKeys([b"n" * 32]))
    assert [contents(newest, digest) for digest in digests] == [bytes([number]) * 1000 for number in range(3)]


def test_a_process_without_the_key_does_not_start_on_an_encrypted_store(tmp_path: Path):
    places = {"store_dir": tmp_path / "store", "database_url": f"sqlite:///{tmp_path}/sluice.db"}
    Artifacts.of(StoreSettings(**places))
    Artifacts.of(StoreSettings(**places, storage_key=KEY))
    with pytest.raises(StoreEncrypted, match="SLUICE_STORAGE_KEY"):
        Artifacts.of(StoreSettings(**places))
    Artifacts.of(StoreSettings(**places, storage_key=KEY))


def test_the_command_encrypts_a_store(tmp_path: Path):
    plain = store(tmp_path / "store", None)
    digest = put(plain, b"model")
    environment = {**plain_environment(), "SLUICE_STORE_DIR": str(tmp_path / "store")}
    command = [sys.executable, "-m", "sluice", "storage", "seal"]
    refused = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, "SLUICE_STORAGE_KEY" in refused.stderr) == (1, True)

    environment["SLUICE_STORAGE_KEY"] = KEY
    for written in (1, 0):
        ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ended.stdout == f"1 files, {written} of them written again\n"
    assert contents(store(tmp_path / "store", OLD), digest) == b"model"


def test_jobs_run_while_neither_inputs_nor_results_lie_readable_anywhere(redis_server: RedisServer, tmp_path: Path):
    database = f"sqlite:///{tmp_path / 'sluice.db'}"
    with cluster(tmp_path, redis_server.url, database) as installation:
        for digest in list(installation.artifacts.digests()):
            store(tmp_path / "store", OLD).seal(digest)
        settings = {"storage_key": KEY, "inline_bytes": 300}
        installation.start_worker(**settings)
        installation.start_gateway(**settings)
        installation.wait_for_slots(1)
        caller = installation.caller("double")

        predicted = caller.post("/v1/models/double:predict", json={"instances": [[7.0, 1.0]]})
        ids = [
            accepted(caller.post("/v1/models/double:submit", json={"instances": [[7.125, 1.0]] * count}))
            for count in (1, 100)
        ]
        ended = [caller.get(f"/v1/jobs/{job}?wait=30").json() for job in ids]

        assert predicted.json() == {"predictions": [[14.0, 2.0]]}
        assert ended[0]["predictions"] == [[14.25, 2.0]]
        assert httpx.get(f"{caller.base_url}{ended[1]['result_url']}").json() == {"predictions": [[14.25, 2.0]] * 100}
        with contextlib.closing(sqlite3.connect(tmp_path / "sluice.db")) as rows:
            kept = [
                row[0] for row in rows.execute("SELECT body FROM job_inputs UNION ALL SELECT body FROM job_results")
            ]
        kept += [path.read_bytes() for path in (tmp_path / "store" / "payloads").iterdir()]
        assert len(kept) == 4
        assert not [body for body in kept if b"7.125" in body or b"14.25" in body or b"predictions" in body]


def test_a_large_payload_is_encrypted_in_pieces_and_read_in_pieces(tmp_path: Path):
    artifacts, data = store(tmp_path, OLD), os.urandom(1024) * (3 * 1024)
    artifacts.put_payload("a.1.result", data)
    kept = tmp_path / "payloads" / "a.1.result"
    assert is_sealed(io.BytesIO(kept.read_bytes()))
    with open_payload(store(tmp_path, NEW), "a.1.result") as file:
        assert file.seek(0, os.SEEK_END) == len(data)
        file.seek(1_500_000)
        assert file.read(2000) == data[1_500_000:1_502_000]
    assert artifacts.get_payload("a.1.result") == data
    kept.rename(tmp_path / "payloads" / "b.1.result")
    with pytest.raises(ArtifactCorrupt):
        open_payload(artifacts, "b.1.result")
