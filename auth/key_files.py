"""Signing keys as PEM files, as releases before 0.2 kept them: read once, when the database has no key yet.

`signing.pem` signs; every other `*.pem` of the folder only verifies.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from auth.errors import KeysInvalid
from auth.keys import ALGORITHM, require_private

SIGNING_FILE = "signing.pem"
MOST_BYTES = 64 * 1024


def read_key_files(folder: Path) -> list[ec.EllipticCurvePrivateKey]:
    """The folder's keys, the one that signs first; none where there is no such folder or key. Raises KeysInvalid."""
    signing = folder / SIGNING_FILE
    if not signing.exists():
        return []
    return [_read_key(path) for path in (signing, *sorted(set(folder.glob("*.pem")) - {signing}))]


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    with path.open("rb") as file:
        require_private(path, os.fstat(file.fileno()))
        pem = file.read(MOST_BYTES)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeysInvalid(f"{path} is not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeysInvalid(f"{path} is not a P-256 key, as {ALGORITHM} needs it")
    return key
