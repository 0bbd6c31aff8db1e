"""What every decoder in a runner answers: tensors of the rows that could be read, and a reason for each other one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model_store.signature import Tensors
from workers.errors import UploadRefused

# Of one answer, so that a file of nothing but wrong rows makes no larger answers than one of right rows.
MESSAGE_CHARACTERS = 200


def refused(code: str, message: str) -> UploadRefused:
    """The whole file cannot be read; `code` is stable."""
    return UploadRefused(message, code=code)


def answer(count: int, wrong: Mapping[int, str], tensors: Tensors) -> tuple[dict[str, object], Tensors]:
    """The answer for `count` rows: `tensors` have all of them, and lose those that are `wrong`."""
    good = np.ones(count, bool)
    good[list(wrong)] = False
    kept = {name: tensor[good] for name, tensor in tensors.items()} if wrong else tensors
    return without(count, wrong, kept)


def without(count: int, wrong: Mapping[int, str], tensors: Tensors) -> tuple[dict[str, object], Tensors]:
    """The same where `tensors` have no rows for those that are `wrong`."""
    told = [[row, message[:MESSAGE_CHARACTERS]] for row, message in sorted(wrong.items())]
    return {"rows": count, "wrong": told}, tensors
