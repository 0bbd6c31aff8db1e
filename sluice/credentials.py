"""Who asks: one order of precedence for every command that talks to a gateway.

1. options of the command: `--credentials FILE`, `--profile NAME`, or `--url`, `--client-id` and `--client-secret`
2. what `Client.from_environment` finds: variables, what `sluice login` wrote, what `sluice up --demo` wrote

The first that says who asks decides; parts of an identity never come from two of these, but for single options, which
count instead of what is in a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sluice.client import Client
from sluice.client_login import DEMO_FILE
from sluice.failures import CommandFailed
from sluice.logins import DEFAULT_PROFILE, login_of

# Somebody sits in front of a command: what does not answer is told sooner than to a program.
PATIENCE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Asker:
    """What options and variables say; `typed` are the names of those that are options of this very command."""

    url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    profile: str | None = None
    typed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose credentials are used: those of a file, with what is given here instead of its, or all three given here."""

    origin: str
    file: Path | None
    url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)


def chosen(asker: Asker) -> Identity:
    """The first in the order above that says who asks. Raises CommandFailed where none does, or one only in part."""
    typed = asker.typed & {"credentials", "profile"}
    if len(typed) > 1:
        raise CommandFailed("--credentials names a file, and --profile a login: give one of them")
    if typed:
        # Variables are for commands whose options do not say who asks.
        parts = {name: getattr(asker, name) if name in asker.typed else None for name in _PARTS}
        if "profile" in typed and asker.profile is not None:
            return Identity(f"the login {asker.profile}", _login(asker.profile), **parts)
        return Identity(f"the file {asker.credentials}", asker.credentials, **parts)
    parts = {name: getattr(asker, name) for name in _PARTS}
    missing = [option for name, option in _PARTS.items() if parts[name] is None]
    if not missing:
        return Identity("options and variables", None, **parts)
    if asker.credentials is not None:
        return Identity(f"the file {asker.credentials}", asker.credentials, **parts)
    if len(missing) < len(parts):
        raise CommandFailed(f"{' and '.join(missing)} missing; or name a file with --credentials")
    return _kept(asker.profile)


def client_of(identity: Identity, *, admin: bool) -> Client:
    """A client with these credentials; it has made no connection yet. Raises CredentialsInvalid."""
    url, client_id, secret = identity.url, identity.client_id, identity.client_secret
    if identity.file is None:
        return Client(url or "", client_id or "", secret or "", patience_seconds=PATIENCE_SECONDS)
    return Client.from_file(
        identity.file,
        admin=admin,
        base_url=url,
        client_id=client_id,
        client_secret=secret,
        patience_seconds=PATIENCE_SECONDS,
    )


_PARTS = {"url": "--url", "client_id": "--client-id", "client_secret": "--client-secret"}


def _login(profile: str) -> Path:
    found = login_of(profile)
    if found is None:
        raise CommandFailed(f"there is no login {profile}: `sluice login --profile {profile}` makes it")
    return found


def _kept(profile: str | None) -> Identity:
    """What this machine keeps."""
    if profile is not None:
        return Identity(f"the login {profile}", _login(profile))
    if (found := login_of(DEFAULT_PROFILE)) is not None:
        return Identity(f"the login {DEFAULT_PROFILE}", found)
    if DEMO_FILE.exists():
        return Identity(f"the file {DEMO_FILE}", DEMO_FILE)
    raise CommandFailed(
        "say who asks: `sluice login`, --credentials FILE, or SLUICE_URL, SLUICE_CLIENT_ID and SLUICE_CLIENT_SECRET "
        "as variables"
    )
