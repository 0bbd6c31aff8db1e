"""`python -m tests.fuzzing.interface`: schemathesis against a live gateway, with and without a token.

It makes requests of the OpenAPI document, good and bad ones, and finds answers that the document does not promise, and
any 5xx. It lives in an environment of its own, made below build/ from requirements that are pinned by hash.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from auth.scopes import Scope
from tests.conftest import RedisServer
from tests.environments import ROOT, install
from tests.processes import cluster

HERE = Path(__file__).resolve().parent / "schemathesis"
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = ROOT / "build" / "fuzzing" / "schemathesis"
# What would change the clients with which the rest is asked for, or delete the models that it is asked of; what ends
# clients, one's own too; and what makes every token void. They have runs of their own, as the last with a token.
ENDING = r"clients/\{client_id\}(/disable|/rotate)?$"
CHANGING = rf"^/admin/(?!{ENDING})(clients/\{{client_id\}}|models/\{{model\}}$)"
# For another method of a model's path TensorFlow Serving answers 400, in words that its clients know; and `rotate` is
# an action that could be a key's name: DELETE says what is wrong with that name.
IN_OTHER_WORDS = ("--exclude-checks", "unsupported_method")
DEADLY = (CHANGING, rf"^/admin/{ENDING}", r"^/admin/keys")

# A model's own document.
OF_A_MODEL = "/v1/models/double/openapi.json"

# Bodies of these are files, which schemathesis cannot write: tests/test_file_formats.py breaks them.
FILES = r":batch$"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing.interface", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=18, help="length of each of the six runs")
    parser.add_argument("--seed", type=int, help="repeat a run")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="more options of `schemathesis run`")
    options = parser.parse_args()
    install(REQUIREMENTS, ENVIRONMENT)
    with tempfile.TemporaryDirectory(prefix="sluice-fuzzing-") as folder:
        redis = RedisServer(Path(folder))
        redis.start()
        try:
            return fuzz(Path(folder), redis.url, options)
        finally:
            redis.kill()


def fuzz(folder: Path, redis_url: str, options: argparse.Namespace) -> int:
    """All runs against a gateway with models; the exit code, 0 where nothing was found."""
    with cluster(folder, redis_url, f"sqlite:///{folder / 'sluice.db'}") as made:
        made.start_worker(worker_processes=1)
        url = made.start_gateway()
        made.wait_for_slots(1)
        callers = (made.caller("double", "slow", scopes=frozenset(Scope)) for _ in range(2))
        first, second = (caller.headers["authorization"] for caller in callers)
        found = [
            # Its bodies fit the model, and reach what the others are refused before. First, while there is one.
            run(url, options, "--header", f"Authorization: {first}", *IN_OTHER_WORDS, document=OF_A_MODEL),
            run(
                url,
                options,
                "--header",
                f"Authorization: {first}",
                "--exclude-path-regex",
                "|".join((*DEADLY, FILES)),
            ),
            *(
                run(url, options, "--header", f"Authorization: {second}", "--include-path-regex", paths)
                for paths in DEADLY[:2]
            ),
            run(
                url, options, "--header", f"Authorization: {first}", "--include-path-regex", DEADLY[2], *IN_OTHER_WORDS
            ),
            run(url, options, "--exclude-path-regex", FILES),
        ]
        log = (folder / "gateway-1.log").read_text()
    unforeseen = [line for line in log.splitlines() if "unexpectedly" in line or "Traceback" in line]
    for line in unforeseen[:10]:
        sys.stderr.write(f"{line}\n")
    return max(found) or int(bool(unforeseen))


def run(url: str, options: argparse.Namespace, *more: str, document: str = "/openapi.json") -> int:
    command: list[str | Path] = [ENVIRONMENT / "bin" / "schemathesis", "--config-file", HERE / "schemathesis.toml"]
    command += ["run", f"{url}{document}", "--max-time", str(options.seconds), "--checks", "all", *more]
    seed: Sequence[str] = [] if options.seed is None else ["--seed", str(options.seed)]
    return subprocess.run([*command, *seed, *options.more], check=False, cwd=ENVIRONMENT).returncode


if __name__ == "__main__":
    sys.exit(main())
