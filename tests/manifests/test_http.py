"""Audio of web servers: real ones, on an address of this machine that is not loopback."""

import http.server
import ipaddress
import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import pytest

from coat.manifests import storage
from coat.manifests.audio.file import decode, probe
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError, ManifestError, Unreachable
from coat.manifests.sources.importing import import_manifest
from coat.manifests.storage import http as web
from tests.manifests.conftest import encoded, reason, sine

SOUND = encoded(sine(2.0), "FLAC")


def own_address() -> str:
    """Of this machine, where it has one beside loopback and link-local."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not web.is_forbidden(ipaddress.ip_address(address.address)):
                return address.address
    pytest.skip("this machine has no address but loopback")


class Server(http.server.ThreadingHTTPServer):
    """Answers by path, as `Handler.PATHS` says; `asked` has method, path and range of each request."""

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.asked: list[tuple[str, str, str]] = []
        self.tag = "one"
        self.failures = 0  # requests that fail before one succeeds

    def url(self, path: str) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:  # a client that hangs up
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def made(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        wanted = self.headers.get("Range", "")
        path = self.path.partition("?")[0]
        self.made.asked.append((self.command, self.path, wanted))
        if path == "/no-head.flac" and self.command == "HEAD":
            self.reply(405)
        elif path.startswith("/status/"):
            self.reply(int(path.rpartition("/")[2]))
        elif path == "/to":
            self.reply(302, headers={"Location": unquote(self.path.partition("?")[2])})
        elif path == "/failing.flac" and self.made.failures > 0:
            self.made.failures -= 1
            self.reply(503)
        elif path == "/cut.flac" and self.command == "GET" and self.made.failures > 0:
            self.made.failures -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(SOUND)))
            self.end_headers()
            self.wfile.write(SOUND[:100])
            self.close_connection = True
        elif path == "/packed.flac":
            self.reply(200, SOUND, {"Content-Encoding": "gzip"})
        elif path == "/whole.flac":
            self.reply(200, SOUND)
        elif path.endswith(".flac"):
            self.reply_range(wanted)
        else:
            self.reply(404)

    def reply_range(self, wanted: str) -> None:
        if not wanted:
            return self.reply(200, SOUND, {"ETag": f'"{self.made.tag}"'})
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        if first >= len(SOUND):
            return self.reply(416)
        part = SOUND[first : last + 1]
        ranges = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(SOUND)}"}
        return self.reply(206, part, {"ETag": f'"{self.made.tag}"', **ranges})

    def reply(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Web addresses are allowed, and what is downloaded once a node goes to a folder of the test."""
    monkeypatch.setenv(web.ALLOWED, "1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Server(own_address()) as made:
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize("path", ["/a.flac", "/a.flac?token=x&y", "/no-head.flac", "/whole.flac", "/to?/a.flac"])
def test_audio_of_a_web_server(path: str, server: Server) -> None:
    url = server.url(path)
    assert decode(url).seconds == probe(url).seconds == 2.0
    assert (storage.size(url), storage.exists(url), storage.is_file(url)) == (len(SOUND), True, True)
    assert storage.read_range(url, 0, 10) == SOUND[:10]
    assert storage.read_bytes(url) == SOUND


def test_spans_and_channels_of_it(server: Server) -> None:
    """A block is asked for once, and anew where the file was written anew."""
    url = server.url("/a.flac")
    for _ in range(3):
        assert decode(f"{url}#offset=0&size={len(SOUND)}").seconds == 2.0
    assert [r for _, _, r in server.asked if r] == [f"bytes=0-{len(SOUND) - 1}"]
    assert decode(f"{url}#channel=0").seconds == 2.0
    assert storage.read_range(url, 10**6, 10**6 + 5) == b""
    with pytest.raises(OSError, match="no ranges"):
        storage.read_range(server.url("/whole.flac"), 5, 10)


def test_a_server_that_refuses_or_has_none(server: Server) -> None:
    assert not storage.exists(server.url("/none.wav"))
    assert reason(server.url("/none.wav")) == "missing"
    for status, error in ((403, PermissionError), (401, PermissionError), (410, FileNotFoundError), (400, OSError)):
        with pytest.raises(error):
            storage.read_bytes(server.url(f"/status/{status}"))
    with pytest.raises(OSError, match="gzip"):
        storage.read_bytes(server.url("/packed.flac"))
    for call in (storage.list_names, storage.list_files, lambda u: storage.write_bytes(u, b"x"), storage.remove):
        with pytest.raises(InputError, match="can be read, and nothing else"):
            call(server.url("/a.flac"))


@pytest.mark.parametrize("path", ["/failing.flac", "/cut.flac"])
def test_what_passes_is_waited_for(path: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.failures = 2
    assert storage.read_bytes(server.url(path)) == SOUND
    monkeypatch.setattr(web, "TRIES", 1)
    web.pools.cache_clear()
    server.failures = 20
    with pytest.raises(Unreachable, match="does not answer"):
        storage.read_bytes(server.url(path))
    web.pools.cache_clear()


def test_no_server_at_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TRIES", 1)
    web.pools.cache_clear()
    with socket.create_server((str(server.server_address[0]), 0)) as free:
        port = free.getsockname()[1]
    for url in (f"http://{server.server_address[0]!s}:{port}/a.flac", "http://no-such-host.invalid/a.flac"):
        with pytest.raises(Unreachable):
            storage.read_bytes(url)
    web.pools.cache_clear()


FORBIDDEN = [
    *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.1", "2130706433", "0x7f.1"),
    *("169.254.169.254", "[fe80::1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[::127.0.0.1]", "[fd00:ec2::254]"),
    *("224.0.0.1", "100.100.100.200", "user:secret@192.0.2.7"),
]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_this_machine_and_credential_services_are_never_asked(host: str, server: Server) -> None:
    """Also not by a redirect."""
    url = f"http://{host}:{server.server_address[1]}/a.flac"
    with pytest.raises(PermissionError, match=r"never read|credentials in an address"):
        storage.read_bytes(url)
    with pytest.raises(PermissionError, match=r"never read|credentials in an address"):
        storage.read_bytes(server.url(f"/to?http://{host}:{server.server_address[1]}/a.flac"))
    assert [path for _, path, _ in server.asked if not path.startswith("/to")] == []


@pytest.mark.parametrize(("target", "said"), [("file:///etc/passwd", "not followed"), ("ftp://h/a", "not followed")])
def test_redirects_out_of_the_web(target: str, said: str, server: Server) -> None:
    with pytest.raises(PermissionError, match=said):
        storage.read_bytes(server.url(f"/to?{target}"))


def test_redirects_that_never_end(server: Server) -> None:
    with pytest.raises(OSError, match="more than 5 redirects"):
        storage.read_bytes(server.url("/to?/to"))


def test_a_manifest_with_web_addresses(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both readers, import, and the commands."""
    source = tmp_path / "s.jsonl"
    source.write_text(json.dumps({"audio": server.url("/a.flac")}) + "\n")
    import_manifest(str(source), str(tmp_path / "m.jsonl"))
    for spans in (True, False):
        (u,) = Manifest.read(str(tmp_path / "m.jsonl"), spans=spans)
        assert (u.audio, u.duration) == (server.url("/a.flac"), 2.0)
    monkeypatch.delenv(web.ALLOWED)
    for spans in (True, False):
        with pytest.raises(ManifestError, match="read where --allow-http is given"):
            Manifest.read(str(tmp_path / "m.jsonl"), spans=spans)
    command = [sys.executable, "-m", "coat", "manifest", "validate", str(tmp_path / "m.jsonl")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    subprocess.run([*command, "--deep", "--allow-http"], capture_output=True, check=True)
    extract = [sys.executable, "-m", "coat", "extract", "--expert", "mel", "--manifest", str(tmp_path / "m.jsonl")]
    done = subprocess.run(
        [*extract, "--store", str(tmp_path / "t"), "--workers", "1", "--allow-http", "--json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)[0]["ok"] == 1
