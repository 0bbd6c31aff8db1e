"""Content types of prediction bodies: what no dialect of an address reads is refused, in words that name what it takes.

Only bodies that do not begin as an object of JSON are looked at: TensorFlow Serving takes JSON whatever it is called,
and `curl -d`, as its documentation has it, calls it a form's fields.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.file_bodies import JSON_START, file_type
from model_store.errors import SluiceError
from workers.protocols.body import Dialect

# What JSON is called where it is called anything, so that it is the JSON that is wrong, not its name.
JSON_TYPES = frozenset({b"", b"application/json", b"text/json", b"application/x-www-form-urlencoded"})
SHOWN_CHARACTERS = 100
AS_THEY_ARE = "/v1/models/{model}:predict takes files as they are"
TAKEN = {
    Dialect.TENSORFLOW_SERVING: (
        "JSON (application/json), an image (image/…), a recording (audio/…), a text (text/plain), or a form of these "
        "(multipart/form-data)"
    ),
    Dialect.OPEN_INFERENCE: (
        "JSON (application/json), or JSON and tensors behind it (application/octet-stream, with the header "
        f"Inference-Header-Content-Length), files as elements of BYTES; {AS_THEY_ARE}"
    ),
}
JSON_ALONE = f'JSON (application/json), files in JSON as {{"b64": "…"}}; {AS_THEY_ARE}'


class ContentTypeUnsupported(SluiceError):
    """The body is of a type, or in a charset, that this address does not take."""

    status = 415
    code = "content_type_unsupported"


def type_of_file(headers: Iterable[tuple[bytes, bytes]], data: bytes, dialect: Dialect) -> bytes | None:
    """The Content-Type of a body that is a file, or a form of files; None of one to be read as JSON.

    Raises ContentTypeUnsupported for what this dialect does not read.
    """
    if data[:1] == b"{" or JSON_START.match(data):
        return None
    sent = next((value for name, value in headers if name == b"content-type"), b"")
    kind = sent.partition(b";")[0].strip().lower()
    if kind in JSON_TYPES or kind.endswith(b"+json"):
        return None
    if dialect is Dialect.TENSORFLOW_SERVING and (file := file_type(headers)):
        return file
    raise ContentTypeUnsupported(
        f"this address takes {TAKEN.get(dialect, JSON_ALONE)}. Got '{shown_type(sent.decode('latin-1'))}'."
    )


def shown_type(text: str) -> str:
    """A Content-Type as it may be shown: printable ASCII, not much of it."""
    return "".join(one for one in text[:SHOWN_CHARACTERS] if one.isascii() and one.isprintable())
