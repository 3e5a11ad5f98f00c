"""Files by URL: local paths and object stores through one small set of functions (fsspec)."""

import contextlib
import json
import os
import posixpath
import tempfile
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from coat.manifests.errors import InputError

# A manifest is untrusted: it may name files, not arbitrary fsspec chains or web addresses.
PROTOCOLS = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")


def protocol(url: str) -> str:
    """`s3` of `s3://bucket/key`, `file` of a plain path; InputError for what coat does not open."""
    if "::" in url and "://" in url:
        raise InputError(f"{url}: chained URLs are not accepted; expected a path or one of {', '.join(PROTOCOLS)}")
    name = url.split("://", 1)[0] if "://" in url else "file"
    if name not in PROTOCOLS:
        raise InputError(f"{url}: protocol {name}:// is not accepted; expected a path or one of {', '.join(PROTOCOLS)}")
    return name


def is_local(url: str) -> bool:
    return protocol(url) in ("file", "local")


def local_path(url: str) -> Path:
    """The path of a local URL; call only where `is_local`."""
    assert is_local(url), url
    return Path(url.split("://", 1)[1] if "://" in url else url)


def absolute(url: str) -> str:
    """The same place whatever the working directory; links are kept as they are."""
    return os.path.abspath(local_path(url)) if is_local(url) else url


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL and the path inside it; InputError where its driver is not installed."""
    name = protocol(url)
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as e:
        extra = "pip install 'coat-audio[s3]'" if name in ("s3", "s3a") else f"install the fsspec driver of {name}://"
        raise InputError(f"{url}: no driver for {name}:// here ({e}); {extra}") from e
    return fs, cast(str, path)


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
    """`path` as it stands in a file that lies in folder `base`: absolute paths and URLs are kept."""
    if "://" in path or path.startswith("/"):
        protocol(path)
        return path
    if is_local(base):
        return os.path.normpath(os.path.join(base.split("://", 1)[-1], path))
    bucket, _, folder = base.split("://", 1)[1].partition("/")
    return f"{protocol(base)}://{bucket}/" + posixpath.normpath(f"/{folder}/{path}").lstrip(
        "/"
    )  # never above the bucket


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return fs.exists(path)


def read_bytes(url: str) -> bytes:
    """The whole file. FileNotFoundError where there is none."""
    fs, path = filesystem(url)
    return cast(bytes, fs.cat_file(path))


def read_json(url: str) -> Any:
    """Parsed JSON; InputError names the file where it is not JSON."""
    data = read_bytes(url)
    try:
        return json.loads(data)
    except ValueError as e:
        raise InputError(f"{url}: expected JSON ({e})") from e


def write_bytes(url: str, data: bytes, sync: bool = True) -> None:
    """Write a whole file so that readers see all of it or nothing (local: temporary file and rename).

    `sync` False: a power cut may lose it.
    """
    if not is_local(url):
        fs, path = filesystem(url)
        fs.pipe_file(path, data)  # an object appears when its upload completes
        return
    target = local_path(url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(21, "Is a directory", str(target))
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as e:
        raise InputError(f"{url}: cannot be written there ({e.filename}: {e.strerror}); choose another place") from e
    fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            if sync:
                os.fsync(f.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove(url: str) -> None:
    """One file; it need not be there."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def remove_if_empty(url: str) -> None:
    """A local folder that holds nothing; object stores have no folders."""
    if is_local(url):
        with contextlib.suppress(OSError):
            local_path(url).rmdir()


def to_json(value: Any, indent: int | None = 2) -> bytes:
    """JSON with sorted keys, so that equal values give equal bytes."""
    return (json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def list_names(url: str) -> list[str]:
    """Names directly inside a folder, sorted; empty where there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        found = cast(list[str], fs.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in found if p.rstrip("/") != path.rstrip("/"))
