"""Files of web servers, read only, and only where the user allows it: a manifest may come from anyone.

COAT_ALLOW_HTTP=1 (`--allow-http`) allows it, here and on workers. Whatever a name resolves to, coat never connects to
this machine, to link-local addresses, or to the services there that give clouds' credentials away; redirects are
followed by the same rules. Proxies of the environment are not used: behind one, nobody could tell.
"""

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from coat.manifests.errors import Unreachable, one_line
from coat.manifests.storage.info import FileInfo

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

ALLOWED = "COAT_ALLOW_HTTP"
PROTOCOLS = ("http", "https")
REDIRECTS = 5
CONNECTIONS = 64  # to one server, as many as `files.REQUESTS`
CONNECT_S, READ_S = 15.0, 60.0
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
TRIES = 5  # of a request that the server or the network fails, half a second to some ten seconds apart
PASSING = (408, 425, 429, 500, 502, 503, 504)
# Where clouds give credentials to whoever asks from inside: those that are not link-local.
CREDENTIAL_SERVICES = {ipaddress.ip_address(a) for a in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")}
# The last four bytes of these are an IPv4 address.
NAT64, COMPATIBLE = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_allowed() -> bool:
    return os.environ.get(ALLOWED) == "1"


def allow() -> None:
    """For this process, and those that it starts."""
    os.environ[ALLOWED] = "1"


def is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    data: bytes


def info(url: str) -> FileInfo:
    """FileNotFoundError, PermissionError; Unreachable where the server does not answer."""
    found = answer(url, "HEAD")
    total = found.headers.get("Content-Length", "")
    if found.status in (405, 501) or not total:  # no HEAD here
        found = answer(url, "GET", {"Range": "bytes=0-0"})
        total = (
            found.headers.get("Content-Range", "").rpartition("/")[2] if found.status == 206 else str(len(found.data))
        )
    if not total.isdigit():
        raise OSError(errno.EIO, "the server does not say how long it is", url)
    return FileInfo(url, int(total), modified(found.headers), stamp(found.headers, int(total)))


def read(url: str) -> tuple[bytes, str]:
    """The whole file, and its stamp."""
    found = answer(url, "GET")
    return found.data, stamp(found.headers, len(found.data))


def read_range(url: str, start: int, end: int) -> bytes:
    """Bytes [start, end), fewer where it ends before. OSError where the server gives whole files alone."""
    if end <= start:
        return b""
    found = answer(url, "GET", {"Range": f"bytes={start}-{end - 1}"})
    if found.status == 416:  # begins behind the end
        return b""
    if found.status != 206 and start > 0:
        raise OSError(errno.ENOTSUP, "the server gives whole files alone, and no ranges; copy it", url)
    return found.data if found.status == 206 else found.data[:end]


def answer(url: str, method: str, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
    """What a server answers, body and all, redirects followed; tried again where the answer is cut off."""
    from urllib3.exceptions import HTTPError

    for tries_left in reversed(range(TRIES)):
        try:
            with response(url, method, headers) as found:
                return Answer(found.status, found.headers, body(url, found))
        except HTTPError as e:
            if not tries_left:
                raise Unreachable(f"{url}: the server does not answer ({one_line(e, 200)}); run again") from e
    raise AssertionError


@contextmanager
def response(url: str, method: str, headers: Mapping[str, str]) -> "Iterator[BaseHTTPResponse]":
    place = url
    for _ in range(REDIRECTS + 1):
        found = ask(place, method, headers)
        try:
            target = found.headers.get("Location") if found.status in (301, 302, 303, 307, 308) else None
            if target is None:
                check_status(url, found.status, method)
                yield found
                return
            place = redirected(url, place, target)
        finally:
            found.close()  # where it was read to its end, its connection is back already
    raise OSError(errno.ELOOP, f"more than {REDIRECTS} redirects", url)


def ask(url: str, method: str, headers: Mapping[str, str]) -> "BaseHTTPResponse":
    """One request, to an address that was looked at before."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as e:
        raise OSError(errno.EINVAL, f"not a web address ({e})", url) from e
    tls = {"assert_hostname": host, "server_hostname": host} if parts.scheme == "https" else {}
    pool = pools(os.getpid()).connection_from_host(reachable_address(url, host, port), port, parts.scheme, tls)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    own = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity", "User-Agent": "coat"}
    return pool.urlopen(
        method, path, headers={**own, **headers}, redirect=False, preload_content=False, assert_same_host=False
    )


@cache
def pools(process: int) -> "PoolManager":
    """Of each process its own: a connection does not outlive a fork."""
    from urllib3 import PoolManager, Retry, Timeout

    retry = Retry(TRIES, redirect=False, status_forcelist=PASSING, backoff_factor=0.5, raise_on_status=False)
    return PoolManager(64, maxsize=CONNECTIONS, retries=retry, timeout=Timeout(connect=CONNECT_S, read=READ_S))


def body(url: str, found: "BaseHTTPResponse") -> bytes:
    if encoding := found.headers.get("Content-Encoding"):
        raise OSError(errno.EIO, f"the server sends it as {encoding}, though it was asked not to", url)
    return found.read(decode_content=False)


def redirected(url: str, place: str, target: str) -> str:
    found = urljoin(place, target)
    if not is_http(found) or (place.startswith("https:") and not found.startswith("https:")):
        raise PermissionError(errno.EACCES, f"redirects to {found[:100]}, which is not followed", url)
    return found


def check_status(url: str, status: int, method: str) -> None:
    """The usual errors of files. 416 is told by who asked for a range, 405 and 501 by who asked for a header."""
    if status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, f"{status}: not there", url)
    if status in (401, 403, 407, 451):
        raise PermissionError(errno.EACCES, f"{status}: refused", url)
    if status in PASSING:
        raise Unreachable(f"{url}: the server does not answer ({status}); run again")
    if status >= 300 and status != 416 and not (method == "HEAD" and status in (405, 501)):
        raise OSError(errno.EIO, f"the server answers {status}", url)


def reachable_address(url: str, host: str, port: int) -> str:
    """What a host's name resolves to. PermissionError where any of it is out of bounds."""
    if urlsplit(url).username is not None:
        raise PermissionError(errno.EACCES, "credentials in an address are not accepted", host)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise Unreachable(f"{url}: no such server ({one_line(e)})") from e
    for *_, place in found:
        if is_forbidden(ipaddress.ip_address(str(place[0]).partition("%")[0])):
            said = f"{host} is {place[0]}: this machine, or one that gives credentials away; never read"
            raise PermissionError(errno.EACCES, said, url)
    return str(found[0][4][0])


def is_forbidden(address: Address) -> bool:
    """This machine, link-local, several machines at once, none; also inside of an IPv6 address that stands for IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64 or address in COMPATIBLE:
            inner.append(ipaddress.IPv4Address(address.packed[-4:]))
        if any(one is not None and is_forbidden(one) for one in inner):
            return True
    out_of_bounds = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return out_of_bounds or address in CREDENTIAL_SERVICES or str(address).startswith("0.")


def modified(headers: Any) -> datetime:
    try:
        return parsedate_to_datetime(headers.get("Last-Modified", "")).astimezone(UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def stamp(headers: Any, size: int) -> str:
    """The ETag (strong or weak), else time and size."""
    tag = re.sub(r'^W/|"', "", headers.get("ETag", ""))
    return tag or f"{headers.get('Last-Modified', '')}-{size}"
