"""What may be wrong with a request's head although uvicorn's parser (llhttp) lets it pass.

llhttp is strict about line ends, folded lines, control characters, lengths and chunk sizes. It is lenient where a proxy
in front may read something else than we do (RFC 9112, section 11.2): that is refused here.
"""

from __future__ import annotations

import re

from model_store.errors import SluiceError

# Headers that are looked at while they come in; of any other one, bytes are bytes.
WATCHED = frozenset({b"host", b"transfer-encoding", b"expect", b"upgrade"})
HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
# A slash, a backslash or a control character that is none for whoever does not decode the path.
HIDDEN = re.compile(rb"%(?:2f|5c|7f|[01][0-9a-f])", re.IGNORECASE)


class RequestMalformed(SluiceError):
    """The request cannot be read, or others could read another one in it (RFC 9112, section 9.6: then close)."""

    status = 400
    code = "request_malformed"


class ExpectationUnknown(SluiceError):
    """RFC 9110, section 10.1.1: there is no expectation but 100-continue."""

    status = 417
    code = "expectation_unknown"


def host_fault(value: bytes) -> SluiceError | None:
    """RFC 9112, section 3.2: a Host that is none is 400. Nothing here looks at its value; proxies do."""
    return None if HOST.fullmatch(value) else RequestMalformed("the Host header names no host")


def coding_fault(value: bytes) -> SluiceError | None:
    """`chunked` and nothing else: of several codings, or of one with an ornament, parsers believe different things."""
    if value.strip(b" \t").lower() == b"chunked":
        return None
    return RequestMalformed("the only Transfer-Encoding that is understood is chunked")


def target_fault(target: bytes) -> SluiceError | None:
    """What speaks against a request's target: it is a path of ours and perhaps a query, and hides no separator.

    The absolute form (RFC 9112, section 3.2.2) is for proxies, which this is not.
    """
    if not target.startswith(b"/"):
        return RequestMalformed("the request's target is no path")
    if b"#" in target:
        return RequestMalformed("the request's target has a fragment")
    if HIDDEN.search(target.partition(b"?")[0]):
        return RequestMalformed("the path has an encoded separator or control character")
    return None


def version_fault(version: str, hosts: int, *, coded: bool) -> SluiceError | None:
    """What speaks against a version of HTTP with so many Host headers; `coded` where there is a Transfer-Encoding."""
    if version not in ("1.1", "1.0"):
        return RequestMalformed(f"HTTP/{version} is not spoken here")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return RequestMalformed("there must be one Host header")
    if coded and version == "1.0":
        # RFC 9112, section 6.1: such framing is faulty.
        return RequestMalformed("HTTP/1.0 has no Transfer-Encoding")
    return None
