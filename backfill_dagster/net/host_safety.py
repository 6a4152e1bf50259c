"""Which servers this project talks to: plain http(s) origins on public addresses, nothing else.

DID documents are written by strangers, so an endpoint is judged twice: its text here (`check_endpoint`), and every
address that a connection really goes to (`AddressGuard`, hooked into the session's resolver and sockets), because names
can resolve to anything and change their mind. What is sent over the connection doesn't belong here.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import idna

from backfill_dagster.errors import RefusedHostError

ENDPOINT_MAX_CHARS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
HOW_TO_ALLOW = "set processing.allow_private_hosts: true if this network is meant"

_PRIVATE_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER_LIKE = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """A server: scheme (`http` or `https`), host (lower case, punycode; IPv6 without brackets) and port."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """`https://host[:port]` without a trailing slash; https leaves port 443 out, http always writes its port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" if self._is_plain else f"{self.scheme}://{host}:{self.port}"

    @property
    def shard_host(self) -> str:
        """The host part of partition keys, as `model.Shard.host`: `localhost_2583`; IPv6 as `ip6-2001-db8-0-...`."""
        host = self.host
        if ":" in host:
            groups = ipaddress.IPv6Address(host).exploded.split(":")
            host = "ip6-" + "-".join(group.lstrip("0") or "0" for group in groups)
        return host if self._is_plain else f"{host}_{self.port}"

    @property
    def _is_plain(self) -> bool:
        return self.scheme == "https" and self.port == 443


class RefusedAddressError(OSError):
    """An address that a connection may not go to. An OSError, so that the HTTP library hands it through."""


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """Sees each address before a connection is made to it, however it was found (literal, DNS, redirect, rebinding)."""

    allow_private: bool

    def allows(self, address: str) -> bool:
        """Whether a connection to this IP address (text, as getaddrinfo gives it) may be made."""
        return self.allow_private or is_public_address(address)

    def socket_factory(self, addr_info: Any) -> socket.socket:
        """Make the socket for one `getaddrinfo` tuple; RefusedAddressError when its address isn't allowed."""
        family, kind, protocol, _, sockaddr = addr_info
        if not self.allows(str(sockaddr[0])):
            raise RefusedAddressError(f"{sockaddr[0]} is not a public address")
        return socket.socket(family, kind, protocol)


def check_endpoint(url: str, allow_private: bool) -> Origin:
    """Read a service endpoint (of a DID document, say) as an origin.

    Args:
        url: text written by a stranger; a lone trailing `/` is accepted, IDNA names become punycode.
        allow_private: accept loopback, private and other non-public addresses and names.

    Raises:
        RefusedHostError: `error_code` is BadEndpoint (not an http(s) origin) or PrivateHost.
    """
    if len(url) > ENDPOINT_MAX_CHARS or any(c <= " " or c in "\\\x7f" for c in url):
        raise _bad(url, "is too long or has characters that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise _bad(url, "is not a URL") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise _bad(url, "is not http or https")
    if "@" in parts.netloc or parts.path not in ("", "/") or "?" in url or "#" in url:
        raise _bad(url, "is more than an origin: no user, path, query or fragment")
    if port == 0 or parts.netloc.endswith(":"):
        raise _bad(url, "has no usable port")
    host = _check_host(url, host, is_bracketed="[" in parts.netloc, allow_private=allow_private)
    return Origin(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme])


def is_public_address(text: str) -> bool:
    """Whether an IP address is reachable for everybody: not private, shared, loopback, link-local, multicast, reserved.

    IPv4 inside IPv6 (mapped, 6to4, NAT64) is judged by the IPv4 address.
    Source: https://www.iana.org/assignments/iana-ipv6-special-registry
    """
    try:
        address = _unwrap(ipaddress.ip_address(text))
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address.scope_id is not None):
        return False
    # is_global alone lets multicast pass.
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
    )


def _unwrap(address: IpAddress) -> IpAddress:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _check_host(url: str, host: str, *, is_bracketed: bool, allow_private: bool) -> str:
    if is_bracketed or _NUMBER_LIKE.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            # A host that ends in a number is an IPv4 address or nothing: 127.1, 0x7f000001 and the like are tricks.
            address: IpAddress = ipaddress.IPv6Address(host) if is_bracketed else ipaddress.IPv4Address(host)
        except ValueError as error:
            raise _bad(url, "has a malformed IP address") from error
        if getattr(address, "scope_id", None) is not None:
            raise _bad(url, "has an IP address with a scope")
        if not allow_private and not is_public_address(str(address)):
            raise _private(url)
        return str(address)
    name = _dns_name(url, host)
    labels = name.split(".")
    is_private = len(labels) == 1 or any(f".{name}".endswith(f".{private}") for private in _PRIVATE_NAMES)
    if is_private and not allow_private:
        raise _private(url)
    return name


def _dns_name(url: str, host: str) -> str:
    name = host.lower().removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise _bad(url, "has a host name that IDNA doesn't know") from error
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER_LIKE.fullmatch(labels[-1]):
        raise _bad(url, "has no valid host name")
    return name


def _shown(url: str) -> str:
    return _UNPRINTABLE.sub("?", url[:120])


def _bad(url: str, why: str) -> RefusedHostError:
    return RefusedHostError(f"endpoint {_shown(url)!r} {why}; refused", error_code="BadEndpoint")


def _private(url: str) -> RefusedHostError:
    return RefusedHostError(
        f"endpoint {_shown(url)!r} is a private address or name; {HOW_TO_ALLOW}", error_code="PrivateHost"
    )
