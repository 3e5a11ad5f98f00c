"""Addresses of files: paths and URLs, put together and taken apart. Touches no file."""

import os
import posixpath
from pathlib import Path

from coat.manifests.errors import InputError
from coat.manifests.storage import http

# A manifest is untrusted: it may name files, not chains of file systems; web addresses only where the user says so.
FILES = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")


def protocols() -> tuple[str, ...]:
    """What is opened."""
    return FILES + http.PROTOCOLS if http.is_allowed() else FILES


def protocol(url: str) -> str:
    """`s3` of `s3://bucket/key`, `file` of a plain path; InputError for what coat does not open."""
    if "://" not in url:
        return "file"
    if "::" in (url.split("]", 1)[-1] if http.is_http(url) else url):  # [::1] is a host
        raise InputError(f"{url}: chained URLs are not accepted; expected a path or one of {', '.join(FILES)}")
    name = url.split("://", 1)[0]
    if name in http.PROTOCOLS and not http.is_allowed():
        raise InputError(f"{url}: web addresses are read where --allow-http is given, and not else")
    if name not in protocols():
        raise InputError(f"{url}: protocol {name}:// is not accepted; expected a path or one of {', '.join(FILES)}")
    return name


def is_local(url: str) -> bool:
    return protocol(url) in ("file", "local")


def local_path(url: str) -> Path:
    """The path of a local URL; call only where `is_local`."""
    assert is_local(url), url
    return Path(url.split("://", 1)[1] if "://" in url else url)


def absolute(url: str) -> str:
    """The same place whatever the working directory; links are kept as they are."""
    if not is_local(url):
        return url
    return os.path.abspath(url.split("://", 1)[1] if "://" in url else url)


def join(base: str, *parts: str) -> str:
    """`base/part/...`; a part never leaves base (AssertionError: parts are names that coat made)."""
    for part in parts:
        assert not part.startswith("/"), part
        assert ".." not in part.split("/"), part
    return "/".join([base.rstrip("/") or "/", *parts])


def parent(url: str) -> str:
    if is_local(url) and "://" not in url:
        return str(Path(url).parent)
    return url.rsplit("/", 1)[0]


def resolve(base: str, path: str) -> str:
    """`path` as it stands in a file that lies in folder `base`: absolute paths and URLs are kept, `~/` is the home."""
    if path.startswith("~/"):
        path = os.path.expanduser(path)
    if "://" in path or path.startswith("/"):
        protocol(path)
        return path
    if "://" not in base:
        return os.path.normpath(os.path.join(base, path))
    if is_local(base):
        return os.path.normpath(os.path.join(base.split("://", 1)[-1], path))
    bucket, _, folder = base.split("://", 1)[1].partition("/")
    inside = posixpath.normpath(f"/{folder}/{path}").lstrip("/")  # never above the bucket
    return f"{protocol(base)}://{bucket}/{inside}"
