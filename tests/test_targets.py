"""What needs Debian's programs runs in `make test-debian`: a mark alone would leave it to nobody."""

from __future__ import annotations

import re

from tests.environments import ROOT

MARKED = re.compile(r"mark\.debian\b")


def test_every_test_that_is_marked_debian_is_run_by_a_target():
    recipe = (ROOT / "Makefile").read_text().partition("\ntest-debian:")[2].partition("\ntest-all:")[0]
    # A command that leaves these out again does not run them.
    commands = [command for command in re.split(r"-m pytest", recipe)[1:] if '"not debian"' not in command]
    named = {word for command in commands for word in command.split() if word.startswith("tests/")}
    marked = {path for path in (ROOT / "tests").rglob("test_*.py") if MARKED.search(path.read_text())}
    assert len(marked) > 4
    left = {str(path.relative_to(ROOT)) for path in marked} - named
    assert {path for path in left if not any(path.startswith(f"{folder}/") for folder in named)} == set()
