"""Nodes that come and go while units run, in a Ray cluster of several nodes on this machine."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.store_checks.verification import verify
from tests.chaos.helpers import events, run, units_done
from tests.pipeline.extraction.test_extract import run as run_here
from tests.pipeline.extraction.test_extract import tree

pytestmark = pytest.mark.slow


class Background(threading.Thread):
    """An extract that goes on while the test takes nodes away."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.arguments, self.summary, self.error = arguments, None, None

    def run(self) -> None:
        try:
            self.summary = run(*self.arguments)
        except BaseException as e:  # noqa: BLE001  the test's own thread raises it
            self.error = e

    def result(self, seconds: float) -> Summary:
        self.join(seconds)
        assert not self.is_alive(), "the run did not end"
        if self.error:
            raise self.error
        assert self.summary
        return self.summary


def wait_for(count: int, store: Path, thread: Background) -> None:
    deadline = time.monotonic() + 300
    while len(units_done(store)) < count:
        assert thread.is_alive(), thread.error
        assert time.monotonic() < deadline
        time.sleep(0.05)


def hosts(store: Path) -> set[str]:
    return {e["worker"] for e in events(store, "unit")}


def test_a_node_lost_in_the_middle_costs_nothing(cluster: Any, many: Path, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    resources = Resources(workers=3, ray_address=cluster.address)
    thread = Background(many, tmp_path / "store", "Steady", resources)
    thread.start()
    wait_for(2, tmp_path / "store", thread)
    cluster.remove_node(nodes[0], allow_graceful=False)
    summary = thread.result(120)
    assert (summary.ok, summary.failed) == (480, 0)
    done = units_done(tmp_path / "store")
    assert len(done) == len(set(done)) == summary.units_done
    run_here(many, tmp_path / "whole", "Slow")
    assert frames(tmp_path / "store") == frames(tmp_path / "whole")
    assert not verify(str(tmp_path / "store")).damages


def test_a_node_that_comes_is_used(cluster: Any, many: Path, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    resources = Resources(workers=1, max_workers=2, ray_address=cluster.address)
    thread = Background(many, tmp_path / "store", "Steady", resources)
    thread.start()
    wait_for(1, tmp_path / "store", thread)
    assert len(hosts(tmp_path / "store")) == 1
    cluster.add_node(num_cpus=1)
    summary = thread.result(150)
    assert summary.ok == 480
    assert len(hosts(tmp_path / "store")) == 2


def frames(store: Path) -> dict[str, bytes]:
    """Of every unit, whatever its expert is called."""
    return {name.split("/", 2)[2]: data for name, data in tree(store).items() if "/units/" in name}
