"""Whether another process is there."""

import os
import socket
import subprocess
import sys

import psutil

from coat.manifests.processes import process_is_alive, this_process


def test_a_process_is_alive_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = socket.gethostname()
    started = psutil.Process(child.pid).create_time()
    assert process_is_alive(here, child.pid)
    assert process_is_alive(here, child.pid, started)
    assert process_is_alive(here, child.pid, started - 60) is False  # another one had its number
    child.kill()
    psutil.wait_procs([psutil.Process(child.pid)], timeout=60)
    assert process_is_alive(here, child.pid) is False
    child.communicate()
    assert process_is_alive(here, child.pid) is False


def test_a_process_of_another_host_cannot_be_asked() -> None:
    assert process_is_alive("another-host", os.getpid()) is None
    assert this_process() == f"{socket.gethostname()}+{os.getpid()}"
