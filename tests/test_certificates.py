"""TLS of the gateway over real connections: its versions, the change of its certificate, certificates of callers."""

from __future__ import annotations

import base64
import datetime
import hashlib
import logging
import os
import shutil
import socket
import ssl
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gateway import certificates, handshakes
from gateway.certificates import CertificateInvalid, CertificateWatch, ClientCertificates, LiveContext, TlsFiles
from sluice.client import Client, CredentialsInvalid, Unreachable
from tests.authorities import Authority, Pair
from tests.live_gateway import eventually
from tests.transport_kit import Asked, connect, head, served, until_closed


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def files_of(pair: Pair, **more: object) -> TlsFiles:
    return replace(TlsFiles(pair.certificate, pair.key), **more)  # type: ignore[arg-type]


def requiring(authority: Authority, ca: Path) -> LiveContext:
    files = files_of(authority.issue("server"), client_ca=ca, client_certificates=ClientCertificates.REQUIRED)
    return LiveContext(files)


def ask(port: int, context: ssl.SSLContext) -> httpx.Response:
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.get(f"https://127.0.0.1:{port}/")


def serial_shown(port: int, context: ssl.SSLContext) -> int:
    with context.wrap_socket(connect(port), server_hostname="127.0.0.1") as connection:
        shown = connection.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)


def test_a_request_over_tls_is_answered_and_told_to_come_back_that_way(authority: Authority):
    with served(Asked(), tls=LiveContext(files_of(authority.issue("server")))) as port:
        answer = ask(port, authority.trusted())
    assert (answer.status_code, answer.json()) == (200, {"extensions": None, "scheme": "https"})
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_without_tls_nothing_is_said_of_it():
    with served(Asked()) as port:
        assert "strict-transport-security" not in httpx.get(f"http://127.0.0.1:{port}/").headers


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_agreed_on_has_forward_secrecy_and_speaks_http_1(authority: Authority, version: ssl.TLSVersion):
    context = authority.trusted()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        served(Asked(), tls=LiveContext(files_of(authority.issue("server")))) as port,
        context.wrap_socket(connect(port), server_hostname="127.0.0.1") as connection,
    ):
        assert connection.selected_alpn_protocol() == "http/1.1"
        cipher = connection.cipher()
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-" if version is ssl.TLSVersion.TLSv1_2 else "TLS_")
    assert "CBC" not in cipher[0]


def test_tls_1_1_is_refused(authority: Authority):
    context = authority.trusted()
    with warnings.catch_warnings():
        # Python says that it is old; that is what it is here for.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with served(Asked(), tls=LiveContext(files_of(authority.issue("server")))) as port, pytest.raises(ssl.SSLError):
        context.wrap_socket(connect(port), server_hostname="127.0.0.1")


def test_plain_http_on_the_port_of_tls_is_not_answered(authority: Authority):
    asked = Asked()
    with served(asked, tls=LiveContext(files_of(authority.issue("server")))) as port, connect(port) as stranger:
        stranger.sendall(head())
        assert b"HTTP/" not in until_closed(stranger)
    assert asked.requests == []


def test_a_new_certificate_is_shown_without_a_restart_and_no_request_fails(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0.02)
    first, second = authority.issue("first"), authority.issue("second")
    context = LiveContext(files_of(first))
    watch = CertificateWatch(context)
    ended, answers = threading.Event(), [0, 0, 0]

    def keep_asking(port: int, number: int) -> None:
        trusted = authority.trusted()
        while not ended.is_set():
            # One keeps its connection, the others make new ones.
            with httpx.Client(verify=trusted, trust_env=False) as client:
                for _ in range(1 if number else 20):
                    client.get(f"https://127.0.0.1:{port}/").raise_for_status()
                    answers[number] += 1

    with served(Asked(), tls=context) as port:
        failures: list[BaseException] = []
        threads = [threading.Thread(target=_noting, args=(failures, keep_asking, port, n)) for n in range(len(answers))]
        watch.start()
        for thread in threads:
            thread.start()
        try:
            assert serial_shown(port, authority.trusted()) == first.serial
            eventually(lambda: min(answers) > 5)
            # As those do who renew certificates: each file is replaced by one that was written elsewhere.
            shutil.copy2(second.key, first.key.with_suffix(".new"))
            os.replace(first.key.with_suffix(".new"), first.key)
            shutil.copy2(second.certificate, first.certificate.with_suffix(".new"))
            os.replace(first.certificate.with_suffix(".new"), first.certificate)
            eventually(lambda: serial_shown(port, authority.trusted()) == second.serial)
            seen = list(answers)
            eventually(lambda: all(now > before + 5 for now, before in zip(answers, seen, strict=True)))
        finally:
            ended.set()
            for thread in threads:
                thread.join(20)
            watch.close()
    assert failures == []


def _noting(failures: list[BaseException], work: object, *arguments: object) -> None:
    try:
        work(*arguments)  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - a thread's edge: what failed is the test's to show
        failures.append(error)


def test_files_that_cannot_be_used_leave_the_old_ones_in_place_and_are_named(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0.02)
    first = authority.issue("first")
    context = LiveContext(files_of(first))
    watch = CertificateWatch(context)
    with served(Asked(), tls=context) as port, caplog.at_level(logging.INFO, "gateway.certificates"):
        watch.start()
        try:
            for broken in (b"no certificate", authority.issue("other").certificate.read_bytes()):
                caplog.clear()
                first.certificate.write_bytes(broken)
                eventually(lambda: any("first.pem" in record.getMessage() for record in caplog.records))
                assert serial_shown(port, authority.trusted()) == first.serial
            caplog.clear()
            first.certificate.unlink()
            eventually(lambda: any("No such file" in record.getMessage() for record in caplog.records))
            assert ask(port, authority.trusted()).status_code == 200
        finally:
            watch.close()


def test_they_are_read_again_for_the_asking(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0.02)
    watch = CertificateWatch(LiveContext(files_of(authority.issue("server"))))
    with caplog.at_level(logging.INFO, "gateway.certificates"):
        watch.start()
        try:
            watch.ask()
            eventually(lambda: [record.getMessage() for record in caplog.records] == ["the TLS files were read again"])
        finally:
            watch.close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(authority: Authority, mode: int):
    pair = authority.issue("server")
    pair.key.chmod(mode)
    with pytest.raises(CertificateInvalid, match="chmod 600"):
        LiveContext(files_of(pair))


def test_an_encrypted_key_is_refused_and_nobody_asks_for_its_password(authority: Authority):
    with pytest.raises(CertificateInvalid, match="without a password"):
        LiveContext(files_of(authority.issue("server", password=b"secret")))


def test_a_certificate_that_has_expired_is_used_and_warned_of(authority: Authority, caplog: pytest.LogCaptureFixture):
    pair = authority.issue("server", age=datetime.timedelta(days=3))
    LiveContext(files_of(pair))
    assert "has expired" in caplog.text


def test_a_callers_certificate_becomes_a_thumbprint_of_its_bytes(authority: Authority):
    shown = authority.issue("caller")
    with served(Asked(), tls=requiring(authority, authority.file)) as port:
        answer = ask(port, authority.trusted(shown))
    expected = base64.urlsafe_b64encode(hashlib.sha256(shown.der).digest()).decode().rstrip("=")
    assert answer.json()["extensions"] == {"tls": {"client_cert_thumbprint": expected}}


def refused(port: int, context: ssl.SSLContext) -> bool:
    """Whether no request comes through; in TLS 1.3 the refusal arrives with the first answer."""
    try:
        return not ask(port, context).is_success
    except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError):
        return True


def test_only_certificates_of_the_authority_come_in_where_they_are_required(authority: Authority, tmp_path: Path):
    other = Authority(tmp_path, "other")
    asked = Asked()
    with served(asked, tls=requiring(authority, authority.file)) as port:
        for shown in (None, other.issue("caller"), authority.issue("late", age=datetime.timedelta(days=3))):
            assert refused(port, authority.trusted(shown))
        assert asked.requests == []
        assert not refused(port, authority.trusted(authority.issue("caller")))


def test_an_authority_that_has_expired_lets_nobody_in(authority: Authority, tmp_path: Path):
    old = Authority(tmp_path, "old", age=datetime.timedelta(days=3))
    with served(Asked(), tls=requiring(authority, old.file)) as port:
        assert refused(port, authority.trusted(old.issue("caller")))


def test_where_they_are_optional_a_caller_without_one_is_nobody_and_a_wrong_one_is_refused(
    authority: Authority, tmp_path: Path
):
    files = files_of(
        authority.issue("server"), client_ca=authority.file, client_certificates=ClientCertificates.OPTIONAL
    )
    with served(Asked(), tls=LiveContext(files)) as port:
        assert ask(port, authority.trusted()).json()["extensions"] is None
        assert ask(port, authority.trusted(authority.issue("caller"))).json()["extensions"] is not None
        assert refused(port, authority.trusted(Authority(tmp_path, "other").issue("caller")))


def test_an_authority_that_is_taken_away_lets_nobody_in_any_more_not_even_who_was_there(
    authority: Authority, tmp_path: Path
):
    other, trusted = Authority(tmp_path, "other"), tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes() + other.file.read_bytes())
    context = requiring(authority, trusted)
    caller = authority.trusted(other.issue("caller"))
    with served(Asked(), tls=context) as port:
        with caller.wrap_socket(connect(port), server_hostname="127.0.0.1") as connection:
            connection.sendall(head())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            session = connection.session
        trusted.write_bytes(authority.file.read_bytes())
        context.reload()
        assert refused(port, caller)
        assert not _resumes(port, caller, session)
        assert not refused(port, authority.trusted(authority.issue("caller")))


def _resumes(port: int, caller: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
    try:
        with caller.wrap_socket(connect(port), server_hostname="127.0.0.1", session=session) as connection:
            connection.sendall(head())
            return connection.recv(1000).startswith(b"HTTP/")
    except (ssl.SSLError, ConnectionError):
        return False


def test_a_certificate_on_the_revocation_list_is_refused(authority: Authority, tmp_path: Path):
    good, bad = authority.issue("good"), authority.issue("bad")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes() + authority.revoking(bad.serial))
    with served(Asked(), tls=requiring(authority, trusted)) as port:
        assert refused(port, authority.trusted(bad))
        assert not refused(port, authority.trusted(good))


def test_a_connection_that_never_finishes_its_handshake_keeps_nobody_waiting(authority: Authority):
    with served(Asked(), tls=LiveContext(files_of(authority.issue("server")))) as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        try:
            assert ask(port, authority.trusted()).status_code == 200
        finally:
            for connection in idle:
                connection.close()


def test_the_client_trusts_whom_the_environment_names_and_shows_what_it_names(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked, shown = Asked(), authority.issue("caller")
    for name in ("SLUICE_CA_FILE", "SSL_CERT_FILE", "SLUICE_CLIENT_CERTIFICATE", "SLUICE_CLIENT_KEY"):
        monkeypatch.delenv(name, raising=False)

    def reaches(port: int) -> bool:
        before = len(asked.requests)
        # It has no tokens to give, so the call fails in either case.
        with Client(f"https://127.0.0.1:{port}", "cli_x", "secret") as client, pytest.raises(Unreachable):
            client.get("/v1/models")
        return len(asked.requests) > before

    with served(asked, tls=requiring(authority, authority.file)) as port:
        assert not reaches(port)
        monkeypatch.setenv("SLUICE_CLIENT_CERTIFICATE", str(shown.certificate))
        monkeypatch.setenv("SLUICE_CLIENT_KEY", str(shown.key))
        assert not reaches(port)
        for variable in ("SSL_CERT_FILE", "SLUICE_CA_FILE"):
            monkeypatch.setenv(variable, str(authority.file))
            assert reaches(port)
            monkeypatch.delenv(variable)
        monkeypatch.setenv("SLUICE_CA_FILE", str(tmp_path / "missing.pem"))
        with pytest.raises(CredentialsInvalid, match=r"missing\.pem"):
            reaches(port)
    assert {path for _, path, _ in asked.requests} == {"/oauth/token"}


def test_a_connection_that_never_begins_its_handshake_is_closed(authority: Authority, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handshakes, "HANDSHAKE_SECONDS", 1.5)
    with served(Asked(), tls=LiveContext(files_of(authority.issue("server")))) as port, connect(port) as silent:
        assert until_closed(silent) == b""
        assert ask(port, authority.trusted()).status_code == 200
