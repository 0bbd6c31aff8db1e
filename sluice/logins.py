"""Logins: the credentials that commands use where nothing else is given, a private file for each profile.

The folder is `sluice/logins` in the user's configuration folder (XDG Base Directory Specification 0.8).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from sluice.data_folder import write_private
from sluice.failures import CommandFailed
from sluice.kept_sign_in import is_sign_in

DEFAULT_PROFILE = "default"
MEMBERS = ("base_url", "client_id", "client_secret", "admin_client_id", "admin_client_secret")
OF_PEOPLE = ("person", "refresh_token")

_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def folder() -> Path:
    """Where the logins of this user are; it need not exist."""
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # The specification has relative paths ignored.
    root = configured if configured.is_absolute() else Path.home() / ".config"
    return root / "sluice" / "logins"


def place_of(profile: str) -> Path:
    """The file of a profile; it need not exist. Raises CommandFailed where that is no name of a profile."""
    if not _PROFILE.fullmatch(profile):
        raise CommandFailed(f"{profile!r} is no name of a profile: letters, digits, dots, dashes, at most 64")
    return folder() / f"{profile}.json"


def login_of(profile: str) -> Path | None:
    """The file of a profile, None where it has none. Raises CommandFailed where others of this machine may read it."""
    place = place_of(profile)
    try:
        mode = place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        # Passed over, another identity would be the next in the order.
        raise CommandFailed(f"cannot look at the login {place}: {error.strerror}") from error
    if mode & _OF_OTHERS:
        raise CommandFailed(f"others can read the secret in {place}: `chmod 600 {place}`, or `sluice login` again")
    return place


def prepare(profile: str) -> Path:
    """The file of a profile, in a folder that is there. Raises CommandFailed."""
    place = place_of(profile)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"cannot make the folder {place.parent}: {error.strerror}") from error
    return place


def keep(profile: str, credentials: Mapping[str, str]) -> Path:
    """Write a profile's credentials in place of those that it had; returns where. Raises CommandFailed."""
    place = prepare(profile)
    kept = {name: credentials[name] for name in (*MEMBERS, *OF_PEOPLE) if name in credentials}
    write_private(place, json.dumps(kept))
    return place


def is_of_person(place: Path) -> bool:
    """Whether a login is a person's; False also where there is none, or none that can be read."""
    try:
        return is_sign_in(json.loads(place.read_text()))
    except (OSError, ValueError):
        return False


def forget(profile: str) -> bool:
    """Remove a profile's credentials from this machine; False where there were none. Raises CommandFailed."""
    place = place_of(profile)
    try:
        place.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CommandFailed(f"cannot remove {place}: {error.strerror}") from error
    return True


def profiles() -> list[str]:
    """The names of all profiles, in their order."""
    return sorted(path.stem for path in folder().glob("*.json") if _PROFILE.fullmatch(path.stem))
