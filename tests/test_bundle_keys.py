"""Keys of bundles: rotated, compromised, moved to another master key, foreign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from auth import signing_keys
from auth.bundle_signatures import BundleInvalid, Fault, read_keys, verify
from auth.errors import KeysUnavailable
from auth.key_tables import BundleKey
from model_store.database import transaction
from model_store.sealing import SealingKeys
from tests.bundle_kit import keys_of
from tests.quiet_gateway import QuietGateway, quiet_gateway

PATH = "/admin/models/double/versions/1/bundle"
Files = dict[str, bytes]


def test_a_rotated_key_still_verifies_and_a_compromised_one_does_not(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        parts = gateway.parts
        claims = {
            "iss": "sluice", "iat": int(parts.snapshot.clock.now()), "model": "m", "version": 1, "variant": "onnx",
            "upload_sha256": "a" * 64, "files": {"model.onnx": "b" * 64},
        }  # fmt: skip
        first = parts.keys.bundles.sign(claims)

        rotate(gateway, compromised=False)
        second = parts.keys.bundles.sign(claims)
        known = read_keys(json.loads(keys_of(gateway)))
        assert verify(first, known).key_id != verify(second, known).key_id
        with pytest.raises(BundleInvalid) as raised:
            verify(parts.keys.bundles.sign({**claims, "iat": 1_000_000}), known)
        assert raised.value.fault is Fault.KEY_OUT_OF_TIME

        rotate(gateway, compromised=True)
        known = read_keys(json.loads(keys_of(gateway)))
        for text in (first, second):
            with pytest.raises(BundleInvalid) as raised:
                verify(text, known)
            assert raised.value.fault is Fault.KEY_REVOKED
        assert verify(parts.keys.bundles.sign(claims), known).manifest.files == {"model.onnx": "b" * 64}


def rotate(gateway: QuietGateway, *, compromised: bool) -> None:
    parts = gateway.parts
    with transaction(parts.sessions) as session:
        signing_keys.rotate(session, parts.settings.master_keys, publish_seconds=2, compromised=compromised)
    parts.snapshot.refresh()


def test_bundle_keys_move_to_a_new_master_key_with_the_others_and_foreign_ones_count_for_nothing(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        parts = gateway.parts
        before = json.loads(keys_of(gateway))
        assert len(before["keys"]) == 1
        with transaction(parts.sessions) as session:
            signing_keys.reseal(session, SealingKeys.parse(f"{'n' * 43} {'m' * 43}"))
        # A gateway that has the old one only knows of no key any more.
        rotated = signing_keys.SigningKeys(SealingKeys.parse("n" * 43))
        with transaction(parts.sessions) as session:
            parts.keys.bundles.read(session)
            rotated.bundles.read(session)
            row = session.query(BundleKey).one()
            assert row.sealed is not None
        assert json.loads(keys_of(gateway)) == {"keys": []}
        assert rotated.bundles.published == before
        assert rotated.bundles.sign({"iss": "sluice"})
        with pytest.raises(KeysUnavailable):
            parts.keys.bundles.sign({"iss": "sluice"})
