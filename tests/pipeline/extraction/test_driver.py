"""The driver of a run: what it takes of its machine."""

import subprocess
import sys
from pathlib import Path

import torch

from coat.pipeline.cluster.resources import GPU_NODES, count_gpus

DRIVER = """
import sys
from coat.extractors.expert import Options
from coat.extractors.registry import create
from coat.pipeline.cluster.resources import Resources, choose_cluster
from coat.pipeline.extraction.extraction import Extraction
create("mel", Options())
cluster, _ = choose_cluster(Resources(workers=2, ray_address="auto", device="cpu"))
assert cluster and Extraction
print([name for name in ("torch", "dask", "pandas", "transformers") if name in sys.modules])
"""


def test_a_driver_of_workers_elsewhere_imports_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", DRIVER], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gpus_are_counted_by_torch_where_there_may_be_some(tmp_path: Path) -> None:
    assert count_gpus(tmp_path) == 0
    for pattern in GPU_NODES:
        (tmp_path / pattern.replace("*", "0")).touch()
    assert count_gpus(tmp_path) == torch.cuda.device_count()
    assert count_gpus() == torch.cuda.device_count()
