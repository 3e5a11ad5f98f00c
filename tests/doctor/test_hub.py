"""The hub: offline, unreachable, silent, refusing; never with a secret in the output."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.doctor.helpers import doctor, run

SECRET = "hf_notToBeSeenAnywhere"


@contextmanager
def hub(status: int, clock_s: float = 0.0) -> Iterator[str]:
    """A hub on this machine that answers all with `status`, by a clock that is ahead by so much."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/api/whoami-v2"
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + clock_s, usegmt=True))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_hub_that_takes_the_token() -> None:
    with hub(200) as url:
        found = doctor("hub", HF_ENDPOINT=url, HF_TOKEN=SECRET)
        assert found["hub"]["found"].startswith(f"{url} answers in ")
        assert found["token"]["found"] == "set, and accepted"
        assert "clock" not in found


def test_a_token_that_is_refused_and_a_clock_that_is_late() -> None:
    with hub(401, clock_s=3600.0) as url:
        done = run("hub", "--json", HF_ENDPOINT=url, HF_TOKEN=SECRET)
        assert SECRET not in done.stdout + done.stderr
        found = doctor("hub", HF_ENDPOINT=url, HF_TOKEN=SECRET)
    assert (found["token"]["state"], found["token"]["remedy"]) == ("warning", "hf auth login")
    assert found["clock"]["state"] == "warning"
    assert "behind the hub's" in found["clock"]["found"]


def test_offline_by_choice_is_no_fault() -> None:
    with hub(500) as url:
        found = doctor("hub", HF_ENDPOINT=url, HF_HUB_OFFLINE=1, HF_TOKEN=SECRET)
    assert found["hub"]["state"] == "absent"
    assert "not asked: HF_HUB_OFFLINE=1" in found["hub"]["found"]
    assert found["token"]["found"] == "set, and not tried"


def test_a_proxy_that_is_not_there() -> None:
    proxy = "http://me:passw0rd@127.0.0.1:9"
    done = run("hub", "--json", HF_ENDPOINT="https://hub.invalid", HTTPS_PROXY=proxy)
    assert "passw0rd" not in done.stdout + done.stderr
    found = doctor("hub", HF_ENDPOINT="https://hub.invalid", HTTPS_PROXY=proxy)["hub"]
    assert found["state"] == "warning"
    assert "does not answer through HTTPS_PROXY=http://127.0.0.1:9" in found["found"]
    assert found["remedy"].startswith("check HTTPS_PROXY; or ")


def test_a_hub_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = doctor("hub", HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")["hub"]
    assert found["state"] == "warning"
    assert "does not answer" in found["found"]
