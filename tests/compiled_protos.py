"""The compiled forms of the gateway's protos, by grpcio-tools; `python -m tests.compiled_protos` writes them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent.parent / "gateway" / "grpc_services" / "protos"


def compiled(proto: Path) -> bytes:
    """The descriptor set of one file and of those that it imports."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}", f"--descriptor_set_out={made}"]
        subprocess.run([*command, "--include_imports", str(proto)], check=True)
        return made.read_bytes()


def protos() -> list[Path]:
    """Every file that is compiled on its own: others are imported by one of them."""
    return sorted(PROTOS.glob("*.proto"))


if __name__ == "__main__":
    for found in protos():
        found.with_suffix(".binpb").write_bytes(compiled(found))
