"""Where webhooks go: addresses that are refused as they are written, and network addresses behind good ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workers.webhooks.networks import may_go_to, parse_networks
from workers.webhooks.settings import WebhookSettings
from workers.webhooks.urls import WebhookRefused, receiver_of

EVERYWHERE = WebhookSettings(webhook_hosts="*", webhook_ports="443 8443")

UNREADABLE = {
    "no host": "https:///path",
    "no scheme": "//hooks.example.com/",
    "another scheme": "gopher://hooks.example.com/",
    "a file": "file:///etc/passwd",
    "plain http": "http://hooks.example.com/",
    "user": "https://user@hooks.example.com/",
    "user and password": "https://user:word@hooks.example.com/",
    "two hosts by an at sign": "https://hooks.example.com@127.0.0.1/",
    "two hosts by a backslash": "https://hooks.example.com\\@127.0.0.1/",
    "fragment": "https://hooks.example.com/#@127.0.0.1",
    "IPv4": "https://127.0.0.1/",
    "public IPv4": "https://93.184.215.14/",
    "IPv4 with a dot": "https://127.0.0.1./",
    "IPv4 in decimal": "https://2130706433/",
    "IPv4 in octal": "https://0177.0.0.01/",
    "IPv4 in hexadecimal": "https://0x7f000001/",
    "IPv4 with a hexadecimal part": "https://127.0.0.0x1/",
    "IPv4 of two parts": "https://127.1/",
    "IPv6": "https://[::1]/",
    "IPv6 with a zone": "https://[fe80::1%25eth0]/",
    "a dot at the end": "https://hooks.example.com./",
    "an empty label": "https://hooks..example.com/",
    "a label too long": f"https://{'a' * 64}.example.com/",
    "a name too long": f"https://{'.'.join(['a' * 60] * 5)}/",
    "a label with a hyphen in front": "https://-a.example.com/",
    "beyond ASCII": "https://höoks.example.com/",
    "digits beyond ASCII": "https://\uff11\uff12\uff17.0.0.1/",
    "a dot beyond ASCII": "https://127\u30020\u30020\u30021/",
    "percent in the host": "https://hooks%2eexample.com/",
    "a line break": "https://hooks.example.com/\r\nHost: 127.0.0.1",
    "a tab": "https://hooks.example.com/\t",
    "a blank": "https://hooks.example.com/ a",
    "a blank in front": " https://hooks.example.com/",
    "another port": "https://hooks.example.com:22/",
    "port 0": "https://hooks.example.com:0/",
    "a port too large": "https://hooks.example.com:70000/",
    "a port in words": "https://hooks.example.com:https/",
    "an empty port": "https://hooks.example.com:/",
    "too long": "https://hooks.example.com/" + "a" * 2048,
}


@pytest.mark.parametrize("url", UNREADABLE.values(), ids=UNREADABLE)
def test_an_address_that_could_be_read_in_two_ways_or_leads_elsewhere_is_refused(url: str):
    with pytest.raises(WebhookRefused) as refused:
        receiver_of(url, EVERYWHERE)

    assert refused.value.status == 422


def test_a_good_address_is_taken_apart_as_it_will_be_requested():
    receiver = receiver_of("https://Hooks.Example.com:8443/in%20box/;a?b=c&d", EVERYWHERE)
    bare = receiver_of("https://xn--hks-sna.example.com?a=1", EVERYWHERE)

    assert (receiver.host, receiver.port, receiver.target) == ("hooks.example.com", 8443, "/in%20box/;a?b=c&d")
    assert receiver.host_field == "hooks.example.com:8443"
    assert (bare.host_field, bare.port, bare.target) == ("xn--hks-sna.example.com", 443, "/?a=1")


def test_without_hosts_there_are_no_webhooks_and_the_text_names_the_setting():
    with pytest.raises(WebhookRefused, match="SLUICE_WEBHOOK_HOSTS names no host"):
        receiver_of("https://hooks.example.com/", WebhookSettings())


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("hooks.example.com", True),
        ("example.com", False),
        ("a.hooks.example.com", False),
        ("a.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("a.example.org.evil.com", False),
    ],
)
def test_hosts_are_those_that_the_operator_names(host: str, taken: bool):
    settings = WebhookSettings(webhook_hosts="hooks.example.com *.example.org")

    if taken:
        assert receiver_of(f"https://{host}/", settings).host == host
    else:
        with pytest.raises(WebhookRefused, match="does not name this host"):
            receiver_of(f"https://{host}/", settings)


def test_plain_http_is_taken_where_the_operator_allows_it():
    settings = WebhookSettings(webhook_hosts="*", webhook_plain_http=True)

    assert receiver_of("http://hooks.example.com/", settings).port == 80


@pytest.mark.parametrize("value", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8  ::1", "a"])
def test_a_setting_that_names_no_networks_keeps_the_process_from_starting(value: str):
    with pytest.raises(ValidationError):
        WebhookSettings(webhook_networks=value)


REFUSED = (
    "0.0.0.1", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:db8::1",
    "2002:7f00:1::", "2002:a00:1::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "2606:4700::1%1",
    "3fff::1", "5f00::1", "fec0::1", "ff02::1", "", "localhost", "0x7f000001", "127.1",
)  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused(address: str):
    assert not may_go_to(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::8a"])
def test_what_is_public_is_not(address: str):
    assert may_go_to(address, ())


@given(st.ip_addresses(v=4))
def test_no_form_of_a_private_address_inside_another_gets_through(address: object):
    inside = int(address)  # type: ignore[call-overload]  # an IPv4Address
    parts = (inside >> 16, inside & 0xFFFF)
    for form in ("::{:x}:{:x}", "::ffff:{:x}:{:x}", "64:ff9b::{:x}:{:x}", "2002:{:x}:{:x}::", "2001:0:{:x}:{:x}::"):
        assert not may_go_to(form.format(*parts), ())


def test_a_network_that_the_operator_names_is_taken_and_only_that():
    allowed = parse_networks("10.1.0.0/16 fd00::/8")

    assert may_go_to("10.1.2.3", allowed)
    assert may_go_to("fd12::1", allowed)
    assert not may_go_to("10.2.0.1", allowed)
    assert not may_go_to("::ffff:10.1.2.3", allowed)
