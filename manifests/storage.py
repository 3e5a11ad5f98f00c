"""Files by URL: local paths and object stores through one small set of functions (fsspec)."""

import contextlib
import errno
import json
import os
import posixpath
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from coat.manifests.errors import InputError, RunError, Unreachable, one_line
from coat.manifests.processes import this_process

# A manifest is untrusted: it may name files, not arbitrary fsspec chains or web addresses.
PROTOCOLS = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")

ATTEMPTS = 4  # of a request to an object store, on top of what its driver retries
BACKOFF_S = 0.5  # doubled each time, with jitter
# What S3's 500, 502, 503 and 504 and the like become in s3fs. A refusal (403, 404) is never tried again.
TRANSIENT = {errno.EIO, errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT}
# An object of a store is put at once up to this: a multipart upload that is cut off stays, unseen and paid for.
PUT_BYTES = 2**30

T = TypeVar("T")


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
        # Other processes write there too, so that a listing is not to be kept.
        fs, path = fsspec.core.url_to_fs(url, **({} if is_local(url) else {"use_listings_cache": False}))
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
    """InputError where the store does not let us look."""
    fs, path = filesystem(url)
    try:
        return request(url, lambda: fs.exists(path))
    except PermissionError as e:
        raise InputError(no_access(url, e)) from e


def read_bytes(url: str) -> bytes:
    """The whole file. FileNotFoundError where there is none."""
    fs, path = filesystem(url)
    return cast(bytes, request(url, lambda: fs.cat_file(path)))


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a file, in one request; fewer where it ends before. FileNotFoundError: none there."""
    fs, path = filesystem(url)
    return cast(bytes, request(url, lambda: fs.cat_file(path, start=start, end=stop)))


def read_json(url: str) -> Any:
    """Parsed JSON; InputError names the file where it is not JSON."""
    try:
        data = read_bytes(url)
    except PermissionError as e:
        raise InputError(no_access(url, e)) from e
    try:
        return json.loads(data)
    except ValueError as e:
        raise InputError(f"{url}: expected JSON ({e})") from e


def write_bytes(url: str, data: bytes, sync: bool = True) -> None:
    """Write a whole file so that readers see all of it or nothing (local: temporary file and rename).

    `sync` False: a power cut may lose it. InputError where it may not be written there, RunError where the
    disk or the store does not take it.
    """
    try:
        if is_local(url):
            write_local(local_path(url), data, sync)
        else:
            fs, path = filesystem(url)
            request(url, lambda: fs.pipe_file(path, data))  # an object appears when its upload completes
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError, FileNotFoundError) as e:
        reason = f"{e.filename}: {e.strerror}" if e.filename else one_line(e)
        raise InputError(f"{url}: cannot be written there ({reason}); choose another place") from e
    except OSError as e:
        raise RunError(f"{url}: cannot be written ({e.strerror or one_line(e)}); see to that, and run again") from e


def write_local(target: Path, data: bytes, sync: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(target))
    fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}~{this_process()}~")
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


def upload(path: Path, url: str) -> None:
    """Put a local file into an object store. OSError or RunError where the store does not take it."""
    fs, target = filesystem(url)
    # s3fs goes multipart from two parts of this size on
    options: dict[str, Any] = {"chunksize": PUT_BYTES} if protocol(url) in ("s3", "s3a") else {}
    request(url, lambda: fs.put_file(str(path), target, **options))


def request(url: str, call: Callable[[], T]) -> T:
    """What `call` gives; on an object store tried again, with backoff, where the fault may pass.

    The drivers retry too (botocore and s3fs five times each); this is for what they let through: server
    errors that last a little longer, answers cut off in their body. Unreachable where it does not pass.
    OSError as the store means it: FileNotFoundError, PermissionError (no credentials, too).
    """
    if is_local(url):
        return call()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except Exception as e:
            kinds = {c.__name__ for c in type(e).__mro__}
            driver = type(e).__module__.split(".")[0] in ("aiobotocore", "aiohttp", "botocore")
            if not is_transient(e):
                if driver and "HTTPClientError" in kinds:  # its driver has tried long enough
                    raise Unreachable(f"{url}: the store does not answer ({one_line(e)}); run again") from e
                if driver:  # no credentials, a bucket's name that cannot be
                    raise PermissionError(one_line(e)) from e
                raise
            if attempt == ATTEMPTS:
                raise Unreachable(f"{url}: the store does not answer ({one_line(e)}); run again") from e
        time.sleep(BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
    raise AssertionError("the last attempt returns or raises")


def is_transient(error: Exception) -> bool:
    """A timeout, a connection or an answer that was cut off, a server's own fault. Not: a refusal."""
    if any(f"{c.__module__}.{c.__name__}".startswith("aiohttp.client_exceptions.Client") for c in type(error).__mro__):
        return True
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in TRANSIENT


def no_access(url: str, error: Exception) -> str:
    return f"{url}: no access ({one_line(error)}); check the address and the credentials"


def to_json(value: Any, indent: int | None = 2) -> bytes:
    """JSON with sorted keys, so that equal values give equal bytes."""
    return (json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def list_names(url: str) -> list[str]:
    """Names directly inside a folder, sorted; empty where there is no such folder."""
    fs, path = filesystem(url)
    try:
        found = cast(list[str], request(url, lambda: fs.ls(path, detail=False)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as e:
        raise InputError(no_access(url, e)) from e
    return sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in found if p.rstrip("/") != path.rstrip("/"))


def remove(url: str) -> None:
    """One file; it need not be there."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        request(url, lambda: fs.rm_file(path))


def remove_if_empty(url: str) -> None:
    """A local folder that holds nothing; object stores have no folders."""
    if is_local(url):
        with contextlib.suppress(OSError):
            local_path(url).rmdir()


def remove_folder(url: str, first: str) -> None:
    """A folder and all in it; the file `first` goes before the others, so that a cut leaves no folder that has it."""
    fs, path = filesystem(url)
    for target, recursive in ((f"{path}/{first}", False), (path, True)):
        if request(url, lambda target=target: fs.exists(target)):
            request(url, lambda target=target, recursive=recursive: fs.rm(target, recursive=recursive))
