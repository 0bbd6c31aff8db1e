"""The corpus is whole: every case from M01 to M79 is there, and every code with which an upload is refused is told."""

from __future__ import annotations

import ast
import re

from tests.hostile.corpus import CASES
from tests.hostile.elsewhere import ELSEWHERE
from tests.hostile.modelscan.__main__ import short
from tests.models import ROOT
from workers.runner.process import MESSAGES

IDS = {f"M{number:02}" for number in range(1, 80)}
# Codes of refusals that other exceptions bring: the runner's, the store's, and the machine's.
OTHERS = {*MESSAGES, "artifact_missing", "artifact_corrupt", "lockdown_unavailable", "predictor_too_large"}
CODE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)+|activation|literal|signature|vocabulary")


def refusals() -> set[str]:
    """The codes in calls of `refused` and `keras_findings`, and in strict JSON's own exception."""
    found = set(OTHERS)
    for path in (ROOT / "workers" / "preparation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                wanted = {"refused": 0, "keras_findings": 0, "_Refused": 1}.get(node.func.id)
                if wanted is not None and len(node.args) > wanted:
                    code = node.args[wanted]
                    found |= {each.value for each in ast.walk(code) if isinstance(each, ast.Constant)}
    return {code for code in found if isinstance(code, str) and CODE.fullmatch(code)}


def documented() -> set[str]:
    """The codes in the table of docs/models.md."""
    text = (ROOT / "docs" / "models.md").read_text()
    section = text.partition("## Why an upload is refused")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    return {code for row in rows for code in re.findall(r"`([a-z0-9_]+)`", row)}


def test_every_case_is_a_file_of_the_corpus_or_a_test_elsewhere():
    assert {case.id for case in CASES} | ELSEWHERE.keys() == IDS


def test_the_tests_elsewhere_exist():
    for names in ELSEWHERE.values():
        for name in names:
            file, _, function = name.partition("::")
            assert f"def {function}(" in (ROOT / "tests" / file).read_text(), name


def test_every_code_of_a_refusal_is_documented_and_no_other():
    assert documented() == refusals()


def test_the_page_beside_another_scanner_has_every_case():
    page = (ROOT / "docs" / "hostile-models.md").read_text()
    rows = [[cell.strip() for cell in row.split("|")[1:]] for row in page.splitlines() if row.startswith("| M")]
    told = sorted((row[0], row[1], row[2].strip("`")) for row in rows)
    assert told == sorted((case.id, short(case.what), case.code) for case in CASES)
