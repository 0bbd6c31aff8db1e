"""What the demo says at its end: what was learned, and commands for a POSIX shell with curl."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sluice.trained import DIGIT, SENTENCE, TONE, Trained, TrainedFiles

FILES = (("mnist", DIGIT, "image/png"), ("topics", SENTENCE, "text/plain"), ("tones", TONE, "audio/wav"))


def numbers_message(trained: Trained, probabilities: Sequence[float], address: str, login: Path, example: Path) -> str:
    """Of the models that take numbers, with the answer to the example digit."""
    weights = ", ".join(f"{weight:.4f}" for weight in trained.weights)
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    lines = (
        "",
        f"mnist   accuracy {trained.accuracy:.3f} on 1,000 held-out digits",
        f"linear  w = ({weights}), b = {trained.bias:.4f}; "
        f"off by at most {max(trained.weights_error, trained.bias_error):.4f}",
        "",
        "Paste these two commands: get a token, predict a digit.",
        "",
        *commands(address, login, example),
        "",
        f"Sluice's answer just now: the digit is a {best} (probability {probabilities[best]:.3f}); "
        f"in truth it is a {trained.digit}.",
    )
    return "\n".join(lines)


def files_message(trained: TrainedFiles, address: str, folder: Path) -> str:
    """Of the models that take texts and recordings, with commands for the example files in a folder."""
    lines = (
        "",
        f"topics  accuracy {trained.topics_accuracy:.3f} on held-out sentences",
        f"tones   accuracy {trained.tones_accuracy:.3f} on held-out tones",
        "",
        f"With that token, files can be sent as they are: a digit, a sentence ({trained.topic}), a tone "
        f"({trained.wave}).",
        "",
        *file_commands(address, folder),
        "",
    )
    return "\n".join(lines)


def commands(address: str, login: Path, example: Path) -> tuple[str, str]:
    """A token into a variable, then a prediction with it."""
    found = r"""sed 's/.*"access_token": *"\([^"]*\)".*/\1/'"""
    return (
        f"TOKEN=$(curl -sS -K {shlex.quote(str(login))} -d grant_type=client_credentials {address}/oauth/token"
        f" | {found})",
        f'curl -sS -H "Authorization: Bearer $TOKEN" -d {shlex.quote(f"@{example}")} {address}/v1/models/mnist:predict',
    )


def file_commands(address: str, folder: Path) -> tuple[str, ...]:
    """A prediction for each of the files in a folder, with that token."""
    return tuple(
        f'curl -sS -H "Authorization: Bearer $TOKEN" -H "Content-Type: {kind}" '
        f"--data-binary {shlex.quote(f'@{folder / file}')} {address}/v1/models/{model}:predict"
        for model, file, kind in FILES
    )
