"""One target under atheris: `python run.py TARGET [options of libFuzzer]`, in atheris's own environment.

The target and all that it reads with are instrumented; a single input may take ten seconds and 2 GiB at most.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["auth", "gateway", "model_store", "workers"]):
    from tests.fuzzing.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
