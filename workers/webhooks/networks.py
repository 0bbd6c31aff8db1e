"""Which network addresses webhooks may go to: public ones, and those that the operator names.

Python's `is_global` is not enough alone: some ranges lead on to other addresses, which a translator or a tunnel on the
way unpacks (RFC 4291 mapped and compatible, RFC 6052 NAT64, RFC 3056 6to4, RFC 4380 Teredo): they are refused whole, as
no receiver lives there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Beside what is not global by IANA's registries. The first of each kind that `is_global` lets pass is why it is here.
REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carriers' own (RFC 6598): a cloud's metadata lies there too
        "168.63.129.16/32",  # a cloud's metadata among public addresses
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays to 6to4
        "198.18.0.0/15",
        "224.0.0.0/4",  # multicast is global by its scope
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "2001::/23",  # Teredo and other protocols' own
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation (RFC 9637), which this Python does not know
        "5f00::/16",  # segment routing (RFC 9602), as above
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks separated by spaces; raises ValueError for what is none, and for one with bits beyond its prefix."""
    return tuple(ipaddress.ip_network(word) for word in text.split())


def may_go_to(address: str, allowed: Sequence[Network]) -> bool:
    """Whether a webhook may go to this address: it is public, or within a network that the operator named."""
    if "%" in address:
        # A zone makes the address one of this machine's own links.
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(parsed in network for network in allowed):
        return True
    return parsed.is_global and not any(parsed in network for network in REFUSED)
