"""Whom the Python client trusts: the authorities of a gateway's certificate, and what it shows of itself."""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import TypedDict

import httpx

from sluice.answers import CredentialsInvalid


class HttpOptions(TypedDict):
    """Of an HTTP client."""

    base_url: str
    timeout: float
    trust_env: bool
    verify: ssl.SSLContext | bool


def http_options(base_url: str, timeout_seconds: float) -> HttpOptions:
    """How a gateway at this address is spoken with. Raises CredentialsInvalid."""
    return {
        "base_url": base_url,
        "timeout": timeout_seconds,
        # A proxy of the environment cannot reach what listens on this machine's loopback address.
        "trust_env": not is_loopback(base_url),
        "verify": trusted() if base_url.startswith("https:") else True,
    }


def trusted() -> ssl.SSLContext | bool:
    """What is asked of a gateway's certificate, and shown to it; httpx's own where nothing is configured."""
    authorities = os.environ.get("SLUICE_CA_FILE") or os.environ.get("SSL_CERT_FILE")
    certificate = os.environ.get("SLUICE_CLIENT_CERTIFICATE")
    if not authorities and not certificate:
        return True
    try:
        context = ssl.create_default_context(cafile=authorities or None)
        if certificate:
            context.load_cert_chain(certificate, os.environ.get("SLUICE_CLIENT_KEY"))
    except OSError as error:
        # ssl's errors are of OSError, and name no file.
        raise CredentialsInvalid(f"cannot use {authorities or ''} {certificate or ''} for TLS: {error}") from error
    return context


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine, which no proxy stands before."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
