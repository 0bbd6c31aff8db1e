"""Reads docker-compose.yml and the Dockerfile, so that tests can check them and start what they would start."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
SECRETS: dict[str, str] = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}


@dataclass(slots=True)
class Stage:
    """A stage of the Dockerfile with what it took over from the stage that it stands on."""

    name: str
    environment: dict[str, str]
    user: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for line in lines if line.strip() for word, _, rest in [line.partition(" ")]]


def stages() -> dict[str, Stage]:
    """All stages by name."""
    found: dict[str, Stage] = {}
    stage = Stage("", {})
    for word, rest in instructions():
        if word == "FROM":
            below, _, name = rest.partition(" AS ")
            under = found.get(below, Stage("", {}))
            stage = found[name] = Stage(name, dict(under.environment), under.user, list(under.entrypoint))
        elif word == "ENV":
            stage.environment.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            stage.user = rest
        elif word == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif word == "CMD":
            stage.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            stage.health_check = json.loads(rest.partition("CMD ")[2])
        elif word == "COPY" and not rest.startswith("--from"):
            stage.copied += shlex.split(rest)[:-1]
        elif word == "RUN":
            stage.runs.append(rest)
    return found


def interpolated(text: str) -> str:
    """The text with `${NAME:-default}` replaced by its default, as without any variable set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def stage_of(service: str) -> Stage:
    """The stage of the Dockerfile from which a service of ours is built."""
    return stages()[interpolated(SERVICES[service]["build"]["target"])]


def environment_of(service: str) -> dict[str, str]:
    """The environment of a service's process: the image's, then the compose file's."""
    composed = {name: interpolated(value) for name, value in SERVICES[service].get("environment", {}).items()}
    return stage_of(service).environment | composed


def command_of(service: str) -> list[str]:
    """What runs in a service of ours."""
    return stage_of(service).entrypoint + SERVICES[service]["command"]
