"""What a plain installation lacks: packages of the server's side, which come with extras of the distribution."""

from __future__ import annotations

import importlib.util

from sluice.failures import CommandFailed

DISTRIBUTION = "sluice-gateway"
OWN = frozenset({"auth", "gateway", "model_store", "monitoring", "sluice", "workers"})
# By the process that a command becomes or starts: its extras, and packages that are there where these are.
PROCESSES = {
    "gateway": ("gateway", ("fastapi",)),
    "worker": ("worker", ("celery", "onnxruntime")),
    "prepare-worker": ("prepare", ("celery", "keras")),
    "background-worker": ("background", ("celery", "pyarrow")),
    "up": ("gateway,prepare,files,embedded", ("fastapi", "celery", "keras", "pyarrow")),
}
# What the other commands of the server's machine read: databases, keys, signatures.
OF_OTHERS = "gateway"


class ExtraMissing(CommandFailed):
    """A command needs packages that this installation lacks; the message says how to get them."""


def require_for(process: str) -> None:
    """Raises ExtraMissing where this installation cannot run such a process."""
    extra, packages = PROCESSES[process]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ExtraMissing(_told(package, extra))


def explained(error: ModuleNotFoundError) -> ExtraMissing:
    """What to do about a package that a command did not find; raises the error itself where the package is our own."""
    package = (error.name or "").partition(".")[0]
    if not package or package in OWN:
        raise error
    return ExtraMissing(_told(package, OF_OTHERS))


def _told(package: str, extra: str) -> str:
    return (
        f"this command is for the server's side, and needs packages that are not installed here ({package} is one): "
        f"pip install '{DISTRIBUTION}[{extra}]'"
    )
