"""Which addresses a client may make us connect to."""

import ipaddress
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_REFUSED: Final = (
    ipaddress.ip_network("100.64.0.0/10"),  # shared by a carrier's customers, and by clouds
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.ip_network("198.18.0.0/15"),
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's own, though it is a public address
    ipaddress.ip_network("::/96"),  # IPv4-compatible
    ipaddress.ip_network("64:ff9b::/96"),  # NAT64
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 of a local kind
    ipaddress.ip_network("3fff::/20"),  # documentation
    ipaddress.ip_network("2001::/23"),  # Teredo and other protocols' own
    ipaddress.ip_network("2002::/16"),  # 6to4
    ipaddress.ip_network("fec0::/10"),
)


def is_public(text: str) -> bool:
    """Whether it is an address of the open internet. Anything that is none is not."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    is_disguised = isinstance(address, ipaddress.IPv6Address) and bool(
        address.scope_id or address.ipv4_mapped
    )
    return address.is_global and not is_disguised and not _is_special(address)


def _is_special(address: _Address) -> bool:
    return (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or any(address in network for network in _REFUSED)
    )
