"""A Ray head node of a test's own, with dashboard and metrics, that ends with the test."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
UP_S = 300.0  # of a loaded machine; some 5 s are enough


@dataclass
class Head:
    port: int
    dashboard: int
    metrics: int
    env: dict[str, str]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def scrape(self) -> str:
        """What Prometheus would read."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=60) as answer:
            return answer.read().decode()


def needs_ray_default() -> None:
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("needs ray[default]")


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        found = [open_sockets.enter_context(socket.socket()) for _ in range(n)]
        for s in found:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in found]


def ray_environment() -> dict[str, str]:
    """With a token of its own: no test may depend on, or reach, another Ray of this machine."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return clean | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_metrics_report_interval_ms": "500",
        "RAY_worker_niceness": "0",  # not 15, with which workers on a busy machine hardly run at all
        "NO_COLOR": "1",
    }


@contextlib.contextmanager
def ray_head(cpus: int = 2) -> Iterator[Head]:
    port, dashboard, metrics = free_ports(3)
    head = Head(port, dashboard, metrics, ray_environment())
    # Its sockets' paths have at most 107 characters: pytest's folders are too deep.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options = [f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        options += [f"--metrics-export-port={metrics}", f"--num-cpus={cpus}", f"--temp-dir={folder}"]
        options += ["--dashboard-agent-listen-port=0"]  # any: by the default one, only one Ray of a machine takes jobs
        log = Path(folder) / "head.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [*RAY, "start", "--head", "--block", "--disable-usage-stats", *options],
                env=head.env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until_up(head, process, log)
            yield head
        finally:
            stop(process, folder)


def wait_until_up(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(urllib.error.URLError, OSError):
            request = urllib.request.Request(f"{head.url}/api/version")
            request.add_header("Authorization", f"Bearer {head.env['RAY_AUTH_TOKEN']}")
            urllib.request.urlopen(request, timeout=60).close()
            head.scrape()
            return
        time.sleep(0.5)
    raise AssertionError(f"no Ray head after {UP_S} s\n{log.read_text()}")


def stop(process: subprocess.Popen[bytes], folder: str) -> None:
    """`ray start --block` takes its own processes along."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    end_all(folder, process)


def end_all(folder: str, process: subprocess.Popen[bytes]) -> None:
    """End by force what is left of our own: the process, and those of Ray that name its folder; then the folder."""
    for p in psutil.process_iter(["cmdline"]):
        if any(folder in word for word in p.info["cmdline"] or []):
            with contextlib.suppress(psutil.NoSuchProcess):
                p.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
