"""For all tests, and the processes that they start."""

import gc
import os

import pytest

from tests.command_server import COMMAND_SERVER, start_command_server

# Threads of OpenMP that wait, sleep. By default they spin for a while, which is a gain where each has a CPU of its own;
# here several processes of two threads share two CPUs, and tests of the trainer took twice the CPU time. Values stay.
# Read once, when torch is loaded: no test has done that yet.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes enough for the CPUs: a second thread of each costs an eighth more
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Workers of Ray are as urgent as all else: by default they yield to whatever runs beside them, and tests wait for them.
os.environ.setdefault("RAY_worker_niceness", "0")

# Seconds that the longest files take. They are begun first: one that begins last is waited for by all other workers.
LONGEST = {
    "test_docs.py": 180, "test_resume.py": 100, "recipe/test_run.py": 90, "test_compile.py": 60, "test_cluster.py": 55,
    "test_loop.py": 50, "test_invariance.py": 48,
    "test_crepe.py": 45, "test_runs.py": 45, "test_pyin.py": 40, "integration/test_cli.py": 39, "test_ranks.py": 30,
    "test_builds.py": 30, "test_probe.py": 28, "test_package.py": 25, "reductions/test_reductions.py": 25,
    "test_codec.py": 25, "test_full_sharding.py": 25, "test_precision.py": 20, "test_footprint.py": 20,
    "doctor/test_software.py": 18, "test_stats_command.py": 18, "test_host_syncs.py": 16, "test_export.py": 16,
    "test_forecast.py": 16, "test_listening.py": 15, "doctor/test_machine.py": 13, "worker/test_long.py": 13,
    "recipe/test_recipes.py": 30,
}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Before the workers are started: one server of commands for all of them, whose imports take 6 s of CPU time."""
    if config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as its clients have it
        os.environ[COMMAND_SERVER] = start_command_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: -next((s for name, s in LONGEST.items() if item.path.match(name)), 0))


def pytest_collection_finish() -> None:
    """What was imported stays: else each full collection, as a worker out of memory wants it, takes half a second."""
    gc.collect()
    gc.freeze()
