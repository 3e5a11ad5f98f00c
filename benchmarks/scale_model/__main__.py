"""`python -m benchmarks.scale_model`: the comparison in under 20 minutes on 2 cores, at the rates that the sweep chose.

One seed of each arm in both regimes, trained and measured anew (the whole is `benchmarks.scale_model.sweep`, and takes
hours), into runs/; beside each figure the committed one. `--smoke`: the machinery alone, at a hundredth of the size.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.scale_model.arms import SEEDS
from benchmarks.scale_model.data import CACHE, prepare
from benchmarks.scale_model.results import RESULTS, Place
from benchmarks.scale_model.sweep import finals, pretraining, run_jobs
from benchmarks.scale_model.report import side_by_side


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    if given.smoke:
        from benchmarks.scale_model.smoke import smoke

        return smoke()
    began = time.monotonic()
    prepare(CACHE)
