"""Errors of authentication and of rights, with the challenge that their answers carry."""

from __future__ import annotations

from enum import StrEnum

from model_store.errors import SluiceError

REALM = 'realm="sluice"'
BASIC_CHALLENGE = f'Basic {REALM}, charset="UTF-8"'


class Reason(StrEnum):
    """Why a token was refused: a closed list for the log and the metric; the caller never learns it."""

    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    HEADER = "header"
    KEY_UNKNOWN = "key_unknown"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME = "lifetime"
    CLIENT_UNKNOWN = "client_unknown"
    CLIENT_DISABLED = "client_disabled"
    REVOKED = "revoked"
    CERTIFICATE = "certificate"


class Refused(SluiceError):
    """An error whose answer says how to authenticate: `challenge` is the value of `WWW-Authenticate`, if any."""

    challenge: str | None = None


class TokenMissing(Refused):
    """RFC 6750, section 3.1: whoever sent no credentials gets a challenge without an error code."""

    status = 401
    code = "token_missing"
    challenge = f"Bearer {REALM}"


class TokenInvalid(Refused):
    """One text for every fault of a token: a caller who probes learns nothing from it."""

    status = 401
    code = "invalid_token"
    challenge = f'Bearer {REALM}, error="invalid_token"'

    def __init__(self, *, reason: Reason) -> None:
        super().__init__("the access token is not valid")
        self.reason = reason


class RequestInvalid(Refused):
    """A request that is no proper attempt to authenticate (RFC 6749, section 5.2; RFC 6750, section 3.1)."""

    status = 400
    code = "invalid_request"


class ScopeMissing(Refused):
    status = 403
    code = "insufficient_scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs the scope {scope}, which the token does not have")
        self.scope = scope
        self.challenge = f'Bearer {REALM}, error="insufficient_scope", scope="{scope}"'


class ScopeInvalid(SluiceError):
    """RFC 6749, section 5.2: a scope that is unknown, malformed, or more than the client was given."""

    status = 400
    code = "invalid_scope"


class GrantTypeUnsupported(SluiceError):
    status = 400
    code = "unsupported_grant_type"


class ClientUnauthorized(SluiceError):
    """RFC 6749, section 5.2: this client may not use this way of getting a token."""

    status = 400
    code = "unauthorized_client"


class ClientAuthenticationFailed(Refused):
    """One text for an unknown client, a wrong secret and a disabled client."""

    status = 401
    code = "invalid_client"
    challenge = BASIC_CHALLENGE

    def __init__(self) -> None:
        super().__init__("the client is unknown or its secret is wrong")


class PersonAuthenticationFailed(Refused):
    """No credentials, or wrong ones, where a person may sign in: browsers ask for a password on a Basic challenge."""

    status = 401
    code = "credentials_invalid"
    challenge = f"{BASIC_CHALLENGE}, Bearer {REALM}"

    def __init__(self) -> None:
        super().__init__("this page wants a name and password, or a bearer token")


class FailuresTooMany(SluiceError):
    status = 429
    code = "too_many_failures"


class PasswordsBusy(SluiceError):
    """Every place for checking a password is taken: each needs 64 MiB, so there are few."""

    status = 503
    code = "passwords_busy"


class PasswordInvalid(SluiceError):
    status = 422
    code = "password_invalid"


class PersonNotFound(SluiceError):
    status = 404
    code = "person_not_found"


class PersonExists(SluiceError):
    status = 409
    code = "person_exists"


class ClientNotFound(SluiceError):
    status = 404
    code = "client_not_found"


class ClientExists(SluiceError):
    status = 409
    code = "client_exists"


class GrantInvalid(SluiceError):
    status = 422
    code = "grant_invalid"


class LimitInvalid(SluiceError):
    status = 422
    code = "limit_invalid"


class KeyUnacceptable(SluiceError):
    """A public key that must not verify anything; the text says why."""

    status = 422
    code = "key_unacceptable"


class IdentityTaken(SluiceError):
    status = 409
    code = "identity_taken"


class RefreshTokenInvalid(SluiceError):
    """RFC 6749, section 5.2: one text for an unknown, expired, used and revoked refresh token."""

    status = 400
    code = "invalid_grant"

    def __init__(self) -> None:
        super().__init__("the refresh token is not valid; sign in again")


class KeyNotFound(SluiceError):
    status = 404
    code = "key_not_found"


class KeyNeeded(SluiceError):
    """Without this key nothing could be signed."""

    status = 409
    code = "key_needed"


class MasterKeyWrong(SluiceError):
    """No signing key that verifies now was made under this master key; nothing was changed."""

    status = 409
    code = "master_key_wrong"


class KeysUnavailable(SluiceError):
    """No key may sign at this moment: tokens cannot be issued until the next one's time has come."""

    status = 503
    code = "keys_unavailable"


class KeysInvalid(SluiceError):
    """Signing keys, or the library that uses them, are not what may be trusted; the gateway does not start."""

    status = 500
    code = "keys_invalid"
