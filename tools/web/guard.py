"""Which addresses may be asked: what keeps a model's URL, and every redirect of it, away from this machine's networks.

Names are looked up once a connection. Every address that comes back is judged, one bad one refuses the name, and the
socket is opened to a judged address and to nothing else, so a name that changes its mind between the check and the
connection (rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from agentenv.errors import ToolError, ToolErrorKind

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a host name, for a port; raises OSError where there is none."""

# Python's `is_global` calls many of these public: multicast, 6to4 relays, IPv4-compatible, NAT64, site-local.
_BLOCKS = (
    "0.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24",
    "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "::/96", "64:ff9b:1::/48",
    "100::/64", "2001:2::/48", "2001:db8::/32", "3fff::/20", "5f00::/16",
    "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip
_NEVER = tuple(ipaddress.ip_network(block) for block in _BLOCKS)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NUMBER = re.compile(r"(?i)[0-9]+|0x[0-9a-f]*")
LONGEST = 2048
"""Characters of an address."""

_MOST_ADDRESSES = 8


def refused(text: str) -> ToolError:
    """The error of an address that may not be opened."""
    return ToolError(text, ToolErrorKind.REFUSED)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and so is each IPv4 address that it carries inside.

    >>> is_public("93.184.216.34"), is_public("127.0.0.1"), is_public("64:ff9b::7f00:1"), is_public("224.0.0.1")
    (True, False, False, False)
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None or ip.sixtofour or ip.teredo:  # tunnels: nobody needs them, and they lead anywhere
            return False
        inside = ip.ipv4_mapped or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if inside is not None:
            return is_public(str(inside))
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return not any(ip in block for block in _NEVER if block.version == ip.version)


async def system_lookup(host: str, port: int) -> list[str]:
    """The system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


class Guard(Struct, frozen=True):
    """What may be asked.

    Args:
        ports: the only ports.
        allow: addresses that are not judged, with their port: "127.0.0.1:8000", "[::1]:8000". For a site of your own
            network that an agent is meant to reach, and for tests; empty by default.
        lookup: finds the addresses of a name.
    """

    ports: frozenset[int] = frozenset({80, 443, 8080, 8443})
    allow: frozenset[str] = frozenset()
    lookup: Lookup = system_lookup

    def permits(self, address: str, port: int) -> bool:
        """Whether a connection to this address and port may be made."""
        if self.allow and _place(address, port) in self.allow:
            return True
        return port in self.ports and is_public(address)

    def check(self, url: str | URL) -> URL:
        """A URL that may be asked, as far as can be told before names are looked up.

        Raises:
            ToolError: of kind `refused`; the text says why.
        """
        found = parsed(url)
        host, port = found.raw_host or "", found.port or 0
        literal = _literal(host)
        if literal is not None:
            if not self.permits(literal, port):
                raise refused("This address is not on the public internet, or its port is not open to you.")
        elif port not in self.ports and not any(place.endswith(f":{port}") for place in self.allow):
            raise refused(f"Port {port} is not open to you; open are {', '.join(map(str, sorted(self.ports)))}.")
        return found

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a name, all of them judged.

        Raises:
            ToolError: of kind `refused`: one of them may not be asked.
            OSError: the name is not known.
        """
        try:
            found = list(dict.fromkeys(await self.lookup(host, port)))
        except UnicodeError:
            raise OSError("not a host name") from None
        if not found:
            raise OSError("the name has no address")
        if not all(self.permits(address, port) for address in found):
            raise refused("This host is not on the public internet, or its port is not open to you.")
        return found[:_MOST_ADDRESSES]

    def open(self, info: Any) -> socket.socket:
        """A socket to an address that may be asked: the last look, at the very address that is connected to.

        Args:
            info: family, type, protocol, name and socket address, as `socket.getaddrinfo` gives them.

        Raises:
            ToolError: of kind `refused`.
        """
        family, kind, protocol, _, place = info
        if family not in (socket.AF_INET, socket.AF_INET6) or not self.permits(place[0], place[1]):
            raise refused("This address is not on the public internet, or its port is not open to you.")
        return socket.socket(family, kind, protocol)


class GuardedResolver(AbstractResolver):
    """Lets an HTTP client connect to nothing but what a guard has judged."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        """The judged addresses of a name; see `Guard.addresses`."""
        return list(self._results(host, port, await self._guard.addresses(host, port)))

    @staticmethod
    def _results(host: str, port: int, addresses: list[str]) -> Iterator[ResolveResult]:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            yield ResolveResult(
                hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
            )

    async def close(self) -> None:
        """Nothing to close."""


def parsed(url: str | URL) -> URL:
    """A URL of the web, without user, password and fragment.

    Raises:
        ToolError: of kind `refused`: it is none, or it is written in a way that only serves to deceive.
    """
    if isinstance(url, str):
        text = url.strip()
        if len(text) > LONGEST:
            raise refused(f"This address is longer than {LONGEST} characters.")
        if any(char.isspace() or not char.isprintable() or char == "\\" for char in text):
            raise refused("This address holds a space, a control character or a backslash.")
        try:
            url = URL(text)
        except ValueError:
            raise refused("This is not an address that can be read; write it like https://example.org/page.") from None
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise refused("Only addresses that begin with http:// or https:// can be opened.")
    if url.raw_user is not None or url.raw_password is not None:
        raise refused("An address with a user name or a password in it is not opened.")
    host = url.raw_host
    if "%" in host or (":" not in host and _odd_number(host)) or not _decodable(url):
        raise refused("The host of this address is written in an unusual way; write its name, or a plain IP address.")
    return url.with_fragment(None)


def _decodable(url: URL) -> bool:
    """Whether the host's name can be shown: it may claim to be an international one and be none."""
    try:
        return bool(url.host)
    except UnicodeError:
        return False


def _odd_number(host: str) -> bool:
    """Whether a host would be read as an IPv4 address though it is not written as one (2130706433, 0x7f.1, 127.1)."""
    labels = host.rstrip(".").split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return False
    try:
        return str(ipaddress.IPv4Address(host)) != host
    except ValueError:
        return True


def _literal(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
