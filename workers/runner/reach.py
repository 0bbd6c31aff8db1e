"""The files that a runner may reach: Python, its packages and shared libraries, its own folder, and little else."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# Shared libraries with the loader's list of them, and what the libraries read about the machine and themselves.
SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/random",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/kernel/osrelease",
    "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
SINK = Path("/dev/null")
# What the commands import of ours, beside the package of the module that was started.
PACKAGES = ("model_store", "monitoring", "workers")


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be read, and what may be read and written; folders with all that is in them."""

    readable: list[Path]
    writable: list[Path]

    @property
    def code(self) -> list[Path]:
        """What must be readable for the process to go on at all."""
        return [path for path in self.readable if str(path) not in SYSTEM]


def of(source: Path, folder: Path) -> Reach:
    """The reach of a runner whose private folder is `folder`; our own packages are imported from `source`.

    Of `source` only packages: in a check-out, secrets and the store may lie beside them. It cannot be searched either,
    so they are imported here (their modules are not).
    """
    for name in PACKAGES:
        importlib.import_module(name)
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    listed = [Path(entry) for entry in sys.path if entry]
    outside = [entry for entry in listed if entry != source or source in installed]
    packages = [
        Path(place)
        for name, module in list(sys.modules.items())
        if "." not in name
        for place in getattr(module, "__path__", ())
        if Path(place).parent == source
    ]
    # libpython, and libraries that an environment brings beside its interpreter.
    libraries = [Path(prefix) / "lib" for prefix in (sys.base_prefix, sys.prefix)]
    configuration = Path(sys.prefix) / "pyvenv.cfg"
    known = [path for path in [*outside, *packages, *libraries, configuration] if path.exists()]
    return Reach([*dict.fromkeys(known), *map(Path, SYSTEM)], [*sorted(folder.iterdir()), SINK])
