"""`python -m benchmarks.scale_model`: the comparison in under 20 minutes on 2 cores, at the rates that the sweep chose.

One seed of each arm in both regimes, trained and measured anew into runs/ (the whole is `benchmarks.scale_model.sweep`,
and takes hours). Beside each figure stands the committed one: on the same machine they should be equal.
`--smoke`: the machinery alone, on few clips, in some minutes.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.scale_model.arms import ARMS, ASKED
from benchmarks.scale_model.data import CACHE, prepare
from benchmarks.scale_model.report import page
from benchmarks.scale_model.report_parts import NAMES, Found, percent
from benchmarks.scale_model.results import Place, mean_accuracy
from benchmarks.scale_model.sweep import REGIMES, quick, quick_pretraining, run_jobs

OUT = Path("runs/scale_model-quick")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--smoke", action="store_true", help="check the machinery alone")
    arguments = parser.parse_args()
    if arguments.smoke:
        from benchmarks.scale_model.smoke import smoke

        smoke()
        return 0
    began = time.monotonic()
    prepare(CACHE)
    place = Place(CACHE, OUT)
    if failed := run_jobs(arguments.jobs, place, [("pretrain", quick_pretraining), ("final", quick)]):
        return failed
    print(page(Found(place.all()), ""))
    compare(place)
    print(f"{time.monotonic() - began:.0f} s")
    return 0


def compare(place: Place) -> None:
    """Mean accuracy of each run now, and as committed."""
    committed = Place(CACHE)
    for regime in REGIMES:
        for run in (run for arm in ARMS for run in quick(place) if (run.regime, run.arm) == (regime, arm)):
            now, then = place.read(run), committed.read(run)
            scores = [mean_accuracy(r["test"], ASKED[regime]) if r else None for r in (now, then)]
            texts = ["-" if s is None else percent(s) for s in scores]
            print(f"{regime} {NAMES[run.arm]}: {texts[0]} %, committed {texts[1]} %")


if __name__ == "__main__":
    sys.exit(main())
