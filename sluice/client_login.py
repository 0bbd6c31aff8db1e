"""Who asks, for the Python client: given, from a file, or from the environment. No secret is ever shown.

Order of precedence, the same for `Client.from_environment` and for commands, whose options come before all of it:

1. `SLUICE_URL`, `SLUICE_CLIENT_ID` and `SLUICE_CLIENT_SECRET`, all three
2. the file that `SLUICE_CREDENTIALS` names; one or two of the above count instead of what it says
3. the login that `SLUICE_PROFILE` names, else the one that `sluice login` wrote
4. what `sluice up --demo` wrote: `sluice-data/demo.json`

The first that says who asks decides. A variable alone changes nothing of a login, whose secret would go to another
address.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, Self, TypeVar

import httpx

from sluice.answers import CredentialsInvalid, plain
from sluice.calls import Calls
from sluice.kept_sign_in import KeptSignIn, is_sign_in
from sluice.patience import PATIENCE_SECONDS
from sluice.proofs import ClientSecret, Proof

L = TypeVar("L")

DEMO_FILE = Path("sluice-data/demo.json")
TIMEOUT_SECONDS = 60.0
_VARIABLES = ("SLUICE_URL", "SLUICE_CLIENT_ID", "SLUICE_CLIENT_SECRET")


class ClientLogin(Generic[L]):
    """What both clients have: an address, an id, where they come from, and a link that keeps the secret.

    `is_person` says that a person signed in; `client_id` is their name then.
    """

    _link_of: Callable[[str, Proof, float], L]

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Makes no connection yet.

        `timeout_seconds` bounds each wait for the network, not a whole call; `patience_seconds` is how long in all a
        prediction, a submit or a question is asked again where the gateway is away, busy, or has the client wait.

        For `https://`, the environment says whom to trust and what to show: `SLUICE_CA_FILE` (or `SSL_CERT_FILE`) is a
        PEM file of authorities in the place of the usual ones, `SLUICE_CLIENT_CERTIFICATE` and `SLUICE_CLIENT_KEY` are
        the caller's own certificate and key.

        Raises CredentialsInvalid for an address that is none, and where one of these files cannot be used.
        """
        self._begin(base_url, ClientSecret(client_id, client_secret), timeout_seconds, patience_seconds)

    def _begin(self, base_url: str, proof: Proof, timeout_seconds: float, patience_seconds: float) -> None:
        self.base_url = address_of(base_url)
        self.client_id = proof.name
        self.is_person = proof.auth is None
        self._calls = Calls(patience_seconds, timeout_seconds)
        self._link = self._link_of(self.base_url, proof, timeout_seconds)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        admin: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        base_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
    ) -> Self:
        """A client from a file with `base_url`, `client_id` and `client_secret`; raises CredentialsInvalid.

        What is given here counts instead of the file's, and the environment does not count.

        With `admin`, the administrator's pair of a file that has two, like `demo.json`: `admin_client_id` and so on.

        A person's login (`sluice login --user`) is renewed in its file with each new token, and is for its own address
        alone.
        """
        try:
            found = json.loads(Path(path).read_text())
            if is_sign_in(found):
                if (base_url, client_id, client_secret) != (None, None, None):
                    raise CredentialsInvalid(f"{path} is a person's login: it goes with no other address, id or secret")
                proof = KeptSignIn(Path(path), found["base_url"], found["person"])
                made = cls.__new__(cls)
                made._begin(found["base_url"], proof, timeout_seconds, patience_seconds)
                return made
            prefix = "admin_" if admin and "admin_client_id" in found else ""
            url, found_id, secret = (
                found[name] for name in ("base_url", f"{prefix}client_id", f"{prefix}client_secret")
            )
        except OSError as error:
            raise CredentialsInvalid(f"cannot read {path}: {error.strerror}") from error
        except KeyError as error:
            raise CredentialsInvalid(f"{path} has no {error}") from error
        except (ValueError, TypeError):
            # Without the error itself, which shows what it could not read.
            raise CredentialsInvalid(f"{path} is not a JSON object") from None
        if not all(isinstance(value, str) for value in (url, found_id, secret)):
            raise CredentialsInvalid(f"{path} has something else than a text for an address, an id or a secret")
        return cls(
            base_url or url,
            client_id or found_id,
            client_secret or secret,
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
        )

    @classmethod
    def from_environment(
        cls,
        *,
        admin: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """A client with the credentials that the environment, a login or a demo has, in the order above.

        Raises CredentialsInvalid where none does, or one in part.
        """
        url, client_id, secret = (environment.get(name) or None for name in _VARIABLES)
        if url is not None and client_id is not None and secret is not None:
            return cls(url, client_id, secret, timeout_seconds=timeout_seconds, patience_seconds=patience_seconds)
        named = environment.get("SLUICE_CREDENTIALS")
        given = [name for name in _VARIABLES if environment.get(name)]
        if named is None and given:
            missing = " and ".join(name for name in _VARIABLES if name not in given)
            raise CredentialsInvalid(f"{missing} missing; or name a file with SLUICE_CREDENTIALS")
        return cls.from_file(
            named or kept_file(environment.get("SLUICE_PROFILE")),
            admin=admin,
            timeout_seconds=timeout_seconds,
            patience_seconds=patience_seconds,
            base_url=url,
            client_id=client_id,
            client_secret=secret,
        )

    def __reduce__(self) -> str:
        # Its secret and its connections belong to no file and to no other process.
        raise TypeError("a client cannot be copied or pickled: make one where it is used")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, {self.client_id!r})"


def address_of(base_url: str) -> str:
    """The address as it is used and shown: without a name and password. Raises CredentialsInvalid."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise CredentialsInvalid(f"this is no address of a gateway: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise CredentialsInvalid("the address of a gateway begins with http:// or https:// and a name")
    return plain(url)


def kept_file(profile: str | None) -> Path:
    """The file of the login, or of the demo. Raises CredentialsInvalid where there is none."""
    # Here: who gives an address and a secret needs nothing of what keeps them on this machine.
    from sluice.failures import CommandFailed
    from sluice.logins import DEFAULT_PROFILE, login_of

    try:
        found = login_of(profile or DEFAULT_PROFILE)
    except CommandFailed as error:
        raise CredentialsInvalid(str(error)) from error
    if found is None and profile is None and DEMO_FILE.exists():
        return DEMO_FILE
    if found is None:
        raise CredentialsInvalid(
            "nothing says who asks: `sluice login`, SLUICE_CREDENTIALS, or SLUICE_URL, SLUICE_CLIENT_ID and "
            "SLUICE_CLIENT_SECRET"
        )
    return found
