"""TLS in the gateway: its certificate, replaced while it serves, and the certificates of its clients (RFC 8705)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509

from auth.errors import KeysInvalid
from auth.keys import require_private
from model_store.errors import SluiceError

log = logging.getLogger(__name__)

# Of TLS 1.2; all ciphers of TLS 1.3 are of this kind: forward secrecy and authenticated encryption, nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
LOOK_SECONDS = 1.0
HTTP = "http/1.1"
REVOCATIONS = b"-----BEGIN X509 CRL-----"


class CertificateInvalid(SluiceError):
    """The files for TLS cannot be used; the message names the file and the reason."""


class ClientCertificates(StrEnum):
    """Whether callers show a certificate of their own."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with its chain, its key, and the authorities whose clients are let in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_certificates: ClientCertificates = ClientCertificates.OFF

    def state(self) -> tuple[object, ...]:
        """Differs when one of the files is another one, or is gone. Links are followed, as orchestrators make them."""
        return tuple(_state(path) for path in (self.certificate, self.key, self.client_ca) if path is not None)


class LiveContext(ssl.SSLContext):
    """A context whose connections are made by the newest good one; those that are open keep theirs.

    Each is a new one: `load_verify_locations` of an old one only ever adds authorities, and its session tickets would
    be good for whoever a removed authority let in.
    """

    current: ssl.SSLContext
    files: TlsFiles
    spoken: str  # on top of TLS, by its name in ALPN
    seen: tuple[object, ...]  # the files' state just before they were read

    def __new__(cls, files: TlsFiles, spoken: str = HTTP) -> LiveContext:
        """Raises CertificateInvalid."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.files, made.seen, made.spoken = files, files.state(), spoken
        made.current = make_context(files, spoken)
        return made

    def __init__(self, files: TlsFiles, spoken: str = HTTP) -> None:
        """Everything is in `__new__`, as ssl has it."""

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - whatever the event loop gives
        return self.current.wrap_bio(*arguments, **options)

    def reload(self) -> None:
        """Read the files again for connections to come; raises CertificateInvalid, and all stays as it is."""
        self.seen = self.files.state()
        self.current = make_context(self.files, self.spoken)


class CertificateWatch:
    """A thread that reads the files again when one of them has changed, or when `ask` was called."""

    def __init__(self, context: LiveContext) -> None:
        self._context = context
        self._asked = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificates", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self) -> None:
        """Read them at the next look, changed or not; only sets a flag, so a signal may call it."""
        self._asked = True

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if self._asked or self._context.files.state() != self._context.seen:
                self._asked = False
                self._reload()

    def _reload(self) -> None:
        try:
            self._context.reload()
        except CertificateInvalid as error:
            log.error("the TLS files cannot be used, those before stay: %s", error)  # noqa: TRY400 - it says what is wrong
        else:
            log.info("the TLS files were read again")


def make_context(files: TlsFiles, spoken: str = HTTP) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with these files; raises CertificateInvalid.

    With certificates of clients TLS 1.3 alone, and no sessions to resume: resuming one looks at no certificate again,
    and before 1.3 a certificate travels for everybody to read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols([spoken])
    try:
        require_private(files.key, files.key.stat())
        context.load_cert_chain(files.certificate, files.key, password=_refuse_password)
        _warn_of_age(files.certificate)
        if files.client_certificates is not ClientCertificates.OFF:
            _verify_clients(context, files)
    except (OSError, ValueError, KeysInvalid) as error:
        # ssl's own errors are of OSError, and name no file.
        raise CertificateInvalid(f"{files.certificate}, {files.key}: {error}") from error
    return context


def client_thumbprint(transport: asyncio.BaseTransport) -> str | None:
    """SHA-256 of the certificate that the other end has shown, as `x5t#S256` writes it (RFC 8705, section 3.1)."""
    connection = transport.get_extra_info("ssl_object")
    shown = None if connection is None else connection.getpeercert(binary_form=True)
    if not shown:
        return None
    return base64.urlsafe_b64encode(hashlib.sha256(shown).digest()).rstrip(b"=").decode()


def _verify_clients(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.client_ca is None:
        raise CertificateInvalid("certificates of clients need a file of the authorities that make them")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    optional = files.client_certificates is ClientCertificates.OPTIONAL
    context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    context.load_verify_locations(files.client_ca)
    if REVOCATIONS in files.client_ca.read_bytes():
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _warn_of_age(certificate: Path) -> None:
    until = x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc
    if until <= datetime.now(UTC):
        log.warning("the TLS certificate %s has expired", certificate, extra={"expired_at": until.isoformat()})


def _refuse_password() -> NoReturn:
    # Without this OpenSSL asks at the terminal, and a server waits for ever.
    raise ValueError("the key is encrypted: store it without a password, readable for the gateway alone")


def _state(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
