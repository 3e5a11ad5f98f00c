"""An S3 for tests: moto's server, behind a proxy that breaks requests as a network and a busy store do."""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from moto.server import ThreadedMotoServer

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "expect", "keep-alive", "date", "server"}
SOMEBODY = "key/20260101/us-east-1/s3/aws4_request"  # moto checks no signature
ERRORS = {  # as S3 words them
    403: ("AccessDenied", "Access Denied"),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}


@dataclass
class Fault:
    """What befalls requests of a method whose path fits: passes `skip` of them, then breaks `times`."""

    # hold: no answer while the test runs; wait: until `go_on`; cut: reset amid the body; lost: done, but not answered
    kind: Literal[403, 500, 503, "slow", "hold", "cut", "lost", "wait"]
    method: str = "GET|HEAD|PUT|POST|DELETE"
    path: str = ""
    skip: int = 0
    times: int = 1
    struck: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.struck >= self.times:
            return False
        self.struck += 1
        return True


@dataclass
class FaultyS3:
    """A server at `url`. `faults` may change while it runs; `log` has every request that reached moto."""

    url: str
    faults: list[Fault] = field(default_factory=list)
    log: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, status
    stopped: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            return next((f for f in self.faults if f.strikes(method, path)), None)

    def puts(self, ending: str) -> list[str]:
        """Keys that were put, in the order in which their puts ended."""
        return [path for method, path, status in self.log if method == "PUT" and status == 200 and ending in path]


def make_bucket(name: str) -> None:
    """In the S3 that the environment names."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=name)


@contextmanager
def serve_s3() -> Iterator[FaultyS3]:
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    s3 = FaultyS3("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> object:
            fault = s3.fault(self.command, self.path)
            if fault and fault.kind == "cut" and self.command == "PUT":
                self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
                return self.reset()
            body = self.body()
            if fault and fault.kind == "slow":
                time.sleep(0.7)
            if fault and fault.kind == "wait":
                s3.go_on.wait(60)
            if fault and fault.kind == "hold":
                return s3.stopped.wait(60)
            if fault and isinstance(fault.kind, int):
                return self.refuse(fault.kind)
            backend = http.client.HTTPConnection(host, port, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            if not self.headers.get("Authorization", "").startswith("AWS"):  # a client of Google's
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
                headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={SOMEBODY}, SignedHeaders=host, Signature=0"
            if self.headers.get("x-goog-if-generation-match") == "0":
                headers["If-None-Match"] = "*"
            backend.request(self.command, self.path, body, headers)
            answer = backend.getresponse()
            data = answer.read()
            backend.close()
            s3.log.append((self.command, self.path, answer.status))
            if fault and fault.kind == "lost":
                return self.reset()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if fault and fault.kind == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                return self.reset()
            self.wfile.write(data)
            return None

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

        def body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def refuse(self, status: int) -> None:
            code, message = ERRORS[status]
            data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def reset(self) -> None:
            """RST instead of FIN, as of a host that went away."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            """Not to the terminal."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that hang up are what these tests are about."""

    proxy = Server(("127.0.0.1", 0), Handler)
    s3.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield s3
    finally:
        s3.stopped.set()
        proxy.shutdown()
        proxy.server_close()
        moto.stop()
