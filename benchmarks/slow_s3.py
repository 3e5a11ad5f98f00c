"""A small S3 in a process of its own that answers each request after a delay, as a store in another rack does.

moto answers some 200 requests a second, which would be what is measured. This one holds objects in memory, checks no
signature, and answers some thousands: GET (ranges), HEAD, PUT (If-None-Match), DELETE, and listings of 1000 keys.

    with serve(delay_s=0.025) as s3: ...    # AWS_ENDPOINT_URL and keys are set meanwhile; `s3.requests()` tells them
"""

import asyncio
import hashlib
import json
import multiprocessing
import os
import re
import urllib.parse
import urllib.request
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from multiprocessing.connection import Connection
from xml.sax.saxutils import escape

PAGE = 1000
LAST = "\U0010ffff"  # after all that begins alike
Seed = Callable[["Bucket"], None]


@dataclass
class Bucket:
    """Objects by key. `keys` is sorted again when it is asked for after a change."""

    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    entries: dict[str, str] = field(default_factory=dict)  # of a listing, by key
    changed: bool = True

    def put(self, key: str, data: bytes, etag: str | None = None) -> None:
        self.changed = self.changed or key not in self.objects
        self.objects[key], self.etags[key] = data, etag or hashlib.md5(data).hexdigest()
        self.entries.pop(key, None)

    def entry(self, key: str) -> str:
        if key not in self.entries:
            facts = f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{self.etags[key]}</ETag>"
            size = len(self.objects[key])
            self.entries[key] = f"<Contents><Key>{escape(key)}</Key>{facts}<Size>{size}</Size></Contents>"
        return self.entries[key]

    def sorted_keys(self) -> list[str]:
        if self.changed:
            self.keys, self.changed = sorted(self.objects), False
        return self.keys


class Server:
    """HTTP/1.1 over asyncio: only what obstore asks."""

    def __init__(self, delay_s: float, bucket: Bucket) -> None:
        self.delay_s, self.bucket = delay_s, bucket
        self.log: list[tuple[str, str, int]] = []  # method (LIST, where it is one), key, bytes of the answer

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await asyncio.sleep(self.delay_s)
                status, more, data = self.control(target) or self.answer(method, target, headers, body)
                self.note(method, target, data)
                length = more.pop("Content-Length", str(len(data)))
                lines = [f"HTTP/1.1 {status} x", f"Content-Length: {length}", *(f"{k}: {v}" for k, v in more.items())]
                writer.write("\r\n".join([*lines, "", ""]).encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client hung up
        finally:
            writer.close()

    def control(self, target: str) -> tuple[int, dict[str, str], bytes] | None:
        """What SlowS3 asks; None of a request for the store."""
        if target == "/log":
            log, self.log = self.log, []
            return 200, {}, json.dumps(log).encode()
        if match := re.fullmatch(r"/delay/([\d.]+)", target):
            self.delay_s = float(match[1])
            return 200, {}, b""
        return None

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        path, _, query = target.partition("?")
        key = urllib.parse.unquote(path).lstrip("/").partition("/")[2]
        asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        objects = self.bucket.objects
        if "list-type" in asked:
            return 200, {}, self.listing(asked).encode()
        if method == "POST" and "delete" in asked:
            gone = [urllib.parse.unquote(k.decode()) for k in re.findall(b"<Key>(.*?)</Key>", body)]
            for found in gone:
                self.bucket.changed = objects.pop(found, None) is not None or self.bucket.changed
            said = "".join(f"<Deleted><Key>{escape(k)}</Key></Deleted>" for k in gone)
            return 200, {}, f"<DeleteResult>{said}</DeleteResult>".encode()
        if method == "PUT":
            if headers.get("if-none-match") == "*" and key in objects:
                return 412, {}, b"<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>"
            self.bucket.put(key, body)
            return 200, {"ETag": f'"{self.bucket.etags[key]}"'}, b""
        if method == "DELETE":
            self.bucket.changed = objects.pop(key, None) is not None or self.bucket.changed
            return 204, {}, b""
        if key not in objects:
            return 404, {}, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
        data, more = objects[key], {"ETag": f'"{self.bucket.etags[key]}"', "Last-Modified": formatdate(usegmt=True)}
        if method == "HEAD":
            return 200, {**more, "Content-Length": str(len(data))}, b""
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            start, end = int(span[1]), min(int(span[2] or len(data)) + 1, len(data))
            return 206, {**more, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end]
        return 200, more, data

    def note(self, method: str, target: str, data: bytes) -> None:
        if target == "/log" or target.startswith("/delay/"):
            return
        path, _, query = target.partition("?")
        key = urllib.parse.unquote(path).lstrip("/").partition("/")[2]
        self.log.append(("LIST" if "list-type" in query else method, key, len(data)))

    def listing(self, asked: dict[str, str]) -> str:
        keys, prefix, delimiter = self.bucket.sorted_keys(), asked.get("prefix", ""), asked.get("delimiter")
        after = asked.get("continuation-token") or asked.get("start-after") or ""
        at = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
        found: list[str] = []
        last = ""
        if not delimiter:
            end = min(at + PAGE, bisect_left(keys, prefix + LAST))
            found, last, at = [self.bucket.entry(key) for key in keys[at:end]], keys[end - 1] if end else "", end
        while delimiter and at < len(keys) and len(found) < PAGE and keys[at].startswith(prefix):
            key = keys[at]
            cut = key.find(delimiter, len(prefix))
            if cut >= 0:
                last = key[: cut + 1] + LAST
                found.append(f"<CommonPrefixes><Prefix>{escape(key[: cut + 1])}</Prefix></CommonPrefixes>")
                at = bisect_right(keys, last)
            else:
                last, at = key, at + 1
                found.append(self.bucket.entry(key))
        more = at < len(keys) and keys[at].startswith(prefix)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        cut_off = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        return f"<ListBucketResult>{cut_off}{token}{''.join(found)}</ListBucketResult>"


def run_server(pipe: Connection, delay_s: float, seed: Seed | None) -> None:
    bucket = Bucket()
    if seed:
        seed(bucket)

    async def serve_forever() -> None:
        server = await asyncio.start_server(Server(delay_s, bucket).connection, "127.0.0.1", 0, limit=2**22)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve_forever())


@dataclass(frozen=True)
class SlowS3:
    url: str

    def requests(self) -> list[tuple[str, str, int]]:
        """Method (LIST, where it is one), key and bytes of the answer of each, since the last time it was asked."""
        with urllib.request.urlopen(f"{self.url}/log") as answer:
            return [(method, key, size) for method, key, size in json.loads(answer.read())]

    def counts(self) -> dict[str, int]:
        """The same, by method."""
        return dict(Counter(method for method, *_ in self.requests()))

    def delay(self, seconds: float) -> None:
        """Of each request, from now on."""
        urllib.request.urlopen(f"{self.url}/delay/{seconds:f}").close()


@contextmanager
def serve(delay_s: float, seed: Seed | None = None) -> Iterator[SlowS3]:
    """`seed` fills the bucket in the server's process: a function that can be imported."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_server, args=(theirs, delay_s, seed), daemon=True)
    process.start()
    s3 = SlowS3(f"http://127.0.0.1:{ours.recv()}")
    told = {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield s3
    finally:
        process.kill()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
