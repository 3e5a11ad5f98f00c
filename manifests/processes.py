"""The processes that write to one disk: what this one is called, and whether another is still there."""

import os
import socket

import psutil

ABANDONED_S = 24 * 3600  # what a process of another host has not touched for so long is nobody's


def this_process() -> str:
    """`host+pid`: what a kill leaves behind tells by it whose it was."""
    return f"{socket.gethostname()}+{os.getpid()}"


def process_is_alive(host: str, pid: int, started: float | None = None) -> bool | None:
    """Whether the process runs; None where it ran on another host, which cannot be asked.

    `started`: its `psutil.Process.create_time()`, which tells it from a later process with the same number.
    """
    if host != socket.gethostname():
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < 1.0
    except psutil.NoSuchProcess:
        return False
