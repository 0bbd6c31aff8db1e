"""Errors of signing in, of sessions, and of what people administer."""

from __future__ import annotations

from auth.errors import REALM, Refused
from model_store.errors import SluiceError


class SignInFailed(Refused):
    """One text for an unknown or disabled person, a wrong password, and a wrong, used or missing code."""

    status = 401
    code = "sign_in_failed"
    # Not Basic: a browser would ask with a window of its own.
    challenge = f"Bearer {REALM}"

    def __init__(self) -> None:
        super().__init__("the name, the password or the code of the second factor is wrong")


class SessionInvalid(Refused):
    """There is no session, it has ended, or it belongs to somebody who is disabled."""

    status = 401
    code = "session_invalid"
    challenge = f"Bearer {REALM}"

    def __init__(self) -> None:
        super().__init__("sign in: there is no session, or it has ended")


class RequestForged(SluiceError):
    """A changing request came with the session's cookie, but not from a page of this gateway."""

    status = 403
    code = "request_forged"


class SecondFactorDue(SluiceError):
    """The person signed in by password alone, and has yet to set up the second factor that is demanded."""

    status = 403
    code = "second_factor_required"

    def __init__(self) -> None:
        super().__init__("a second factor is demanded here: set it up with POST /admin/session/second-factor first")


class CodeInvalid(SluiceError):
    status = 422
    code = "code_invalid"

    def __init__(self) -> None:
        super().__init__("this is not the code of now; look at the clock of the device that shows it")


class SecondFactorNotOffered(SluiceError):
    status = 409
    code = "second_factor_not_offered"


class OneTimeTokenInvalid(SluiceError):
    """One text for a token that is unknown, used, replaced or expired."""

    status = 403
    code = "one_time_token_invalid"

    def __init__(self) -> None:
        super().__init__("the token is unknown, was used, or has expired")


class AdministratorExists(SluiceError):
    status = 409
    code = "administrator_exists"

    def __init__(self) -> None:
        super().__init__("there is an administrator already, who adds others")


class LastAdministrator(SluiceError):
    status = 409
    code = "last_administrator"

    def __init__(self) -> None:
        super().__init__("this is the last administrator who can sign in: make another one first")


class SessionNotFound(SluiceError):
    status = 404
    code = "session_not_found"
