"""An S3 that takes as long as one far away: moto's, behind a proxy in a process of its own that waits 25 ms before
every request and writes down what was asked.

    with slow_s3(folder) as s3:        the environment points there meanwhile
        s3.delay(0.025)
        ...
        s3.requests()                  (method, path, bytes of the answer) since the last call of `clear`
"""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DELAY_S = 0.025
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "expect", "keep-alive", "date", "server"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class SlowS3:
    """`folder` has `log`, a line a request, and `delay`, seconds."""

    folder: Path

    def delay(self, seconds: float) -> None:
        (self.folder / "delay").write_text(str(seconds))

    def clear(self) -> None:
        (self.folder / "log").write_text("")

    def requests(self) -> list[tuple[str, str, int]]:
        lines = [line.split(" ") for line in (self.folder / "log").read_text().splitlines()]
        return [(method, path, int(size)) for method, path, size in lines]


@contextmanager
def slow_s3(folder: Path) -> Iterator[SlowS3]:
    folder.mkdir(parents=True, exist_ok=True)
    s3 = SlowS3(folder)
    s3.delay(0.0)
    s3.clear()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.slow_s3", str(folder)], stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in (*ENVIRONMENT, "AWS_ENDPOINT_URL")}
    try:
        address = folder / "address"
        while not address.exists():
            assert process.poll() is None, "the emulator did not start"
            time.sleep(0.05)
        os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=address.read_text())
        yield s3
    finally:
        process.kill()
        process.wait()
        (folder / "address").unlink(missing_ok=True)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def serve(folder: Path) -> None:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    log = (folder / "log").open("a")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(float((folder / "delay").read_text() or 0))
            backend = http.client.HTTPConnection(host, port, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            backend.request(self.command, self.path, body, headers)
            answer = backend.getresponse()
            data = answer.read()
            backend.close()
            log.write(f"{self.command} {self.path} {len(data)}\n")
            log.flush()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

        def log_message(self, format: str, *args: Any) -> None:
            """Not to the terminal."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    (folder / "address.tmp").write_text(f"http://127.0.0.1:{proxy.server_address[1]}")
    (folder / "address.tmp").rename(folder / "address")
    proxy.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
