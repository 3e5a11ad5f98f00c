"""An Azure Blob Storage for tests: Microsoft's Azurite, from npm."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VERSION = "3.37.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "coat-tests" / f"azurite-{VERSION}"
INSTALL_S, START_S = 600, 60
# Of every Azurite; Microsoft's documentation prints it.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def azurite() -> Path:
    """The program, installed on the first call; skips where there is no npm."""
    program = CACHE / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return program
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite comes from npm, which is not on this machine")
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", folder, f"azurite@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        if done.returncode:
            pytest.skip(f"Azurite cannot be installed here: {done.stderr.strip()[-300:]}")
        if not CACHE.exists():  # another test process may have been faster
            os.rename(folder, CACHE)
            os.mkdir(folder)
    return program


@contextmanager
def serve_azure() -> Iterator[str]:
    """The URL of an Azurite that forgets all at its end."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    where = ["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    process = subprocess.Popen([azurite(), *where, "--silent", "--disableTelemetry", "--skipApiVersionCheck"])
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "Azurite ended"
                assert time.monotonic() < deadline, "Azurite does not answer"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
