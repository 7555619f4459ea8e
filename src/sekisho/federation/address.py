"""Addresses of endpoints: which urls a gateway may be sent to.

A gateway stands inside a network that its configuration's author may not own. An address that reaches the machine's
own metadata service would hand out the machine's credentials (server-side request forgery), so those are refused by
number here; `forbidden_address` is for whoever resolves a name.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_URL_CHARACTERS = re.compile(r"[!-~]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,251}[a-z0-9])?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~:+=,-]+)*/?")
# inet_aton reads `2852039166`, `0xA9FEA9FE` and `169.254.43518` as addresses too; a name never ends like that.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_FORM = "write it as http://host:port/v1"
_CALLS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/models")

_METADATA_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # RFC 3927 link-local; the metadata services of AWS, Azure, Google and OpenStack
        "fe80::/10",  # RFC 4291 §2.5.6 link-local
        "fd00:ec2::254/128",  # AWS over IPv6
        "fd20:ce::254/128",  # Google over IPv6
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's platform address
        "192.0.0.192/32",  # Oracle Cloud
    )
)
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1


class AddressRefused(msgspec.Struct, frozen=True, kw_only=True):
    """Why a url can't be an endpoint's, in words that never repeat credentials."""

    what: str
    mend: str


def forbidden_address(address: Address) -> str | None:
    """Why nothing may be sent to this address; None when it may."""
    for candidate in (address, *_embedded(address)):
        if any(candidate in network for network in _METADATA_NETWORKS if network.version == candidate.version):
            return "is link-local or a cloud's metadata service"
        if candidate.is_multicast or candidate.is_unspecified or candidate == _BROADCAST:
            return "is no address of one server"
    return None


_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def _embedded(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (int(address) >> 32 == 0 and low > 1):  # `::a.b.c.d`, RFC 4291 §2.5.5.1; not ::1
        inner.append(ipaddress.IPv4Address(low))
    return [each for each in inner if each is not None]


def check_url(url: str) -> str | AddressRefused:
    """The url in its plain form (lower-case host, no slash at the end), or why it can't be an endpoint's."""
    refused = _misplaced(url)
    if refused is not None:
        return refused
    try:
        parts = urlsplit(url)
        port = parts.port
        if port == 0:
            raise ValueError
    except ValueError:
        return AddressRefused(what="the url has a host or port that can't be read", mend=_FORM)
    if parts.scheme not in ("http", "https"):
        return AddressRefused(what="the url is neither http nor https", mend=_FORM)
    host = _host(parts.hostname or "")
    path = _path(parts.path)
    if isinstance(host, AddressRefused):
        return host
    if isinstance(path, AddressRefused):
        return path
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{path}"


def _misplaced(url: str) -> AddressRefused | None:
    """What must not stand anywhere in a url of ours."""
    if not _URL_CHARACTERS.fullmatch(url) or "\\" in url:
        return AddressRefused(
            what="the url has spaces or characters other than printable ASCII",
            mend="write a name with other letters in its ASCII form (xn--…)",
        )
    if "@" in url:
        return AddressRefused(
            what="the url has credentials or an `@` in it",
            mend='take them out; say where the key lies with api_key = { file = "…" }',
        )
    if "?" in url or "#" in url:
        return AddressRefused(what="the url has a query or a fragment", mend="end it before `?` and `#`")
    return None


def is_loopback(url: str) -> bool:
    """Whether a url that `check_url` passed stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(host: str) -> str | AddressRefused:
    if ":" in host or _NUMERIC.fullmatch(host):
        return _number(host)
    if not _HOST.fullmatch(host) or ".." in host:
        return AddressRefused(what="the url has no host name that can be used", mend=_FORM)
    if host in _METADATA_NAMES:
        return AddressRefused(
            what=f"`{host}` is a cloud's metadata service", mend="name the server that serves the model"
        )
    return host


def _number(host: str) -> str | AddressRefused:
    try:
        # a zone (`fe80::1%eth0`) means something on one machine only
        address = ipaddress.ip_address("" if "%" in host else host)
    except ValueError:
        return AddressRefused(
            what=f"`{host}` is no IP address in its usual form", mend="write it as 127.0.0.1 or [::1]"
        )
    why = forbidden_address(address)
    if why is not None:
        return AddressRefused(what=f"`{host}` {why}", mend="name the server that serves the model")
    return f"[{address}]" if address.version == 6 else str(address)


def _path(path: str) -> str | AddressRefused:
    if not _PATH.fullmatch(path) or any(segment in (".", "..") for segment in path.split("/")):
        return AddressRefused(
            what="the url has a path with empty, dotted or escaped parts", mend="write it plainly, as in /v1"
        )
    plain = path.rstrip("/")
    call = next((call for call in _CALLS if plain.endswith(call)), None)
    if call is not None:
        return AddressRefused(what=f"the url ends with the path of a call, `{call}`", mend=f"end it before `{call}`")
    return plain
