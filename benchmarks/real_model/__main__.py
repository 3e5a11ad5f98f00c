"""`python -m benchmarks.real_model --digits FOLDER`: one seed of A and of C from the aligned student, in ten minutes.

Fewer clips and steps than the study has (`benchmarks.real_model.study`, hours on two cores), made, trained and asked
anew. Beside each figure stands the committed one: on the same kind of machine they should be near. With 40 steps they
show that the whole works, not which arm is better. A second call goes on where the first was stopped.
"""

import argparse
import sys
import time

from benchmarks.real_model.arms import LEARNING_RATE, SHORT_CLIPS, STEPS, Run, native_dtype
from benchmarks.real_model.clips import TASKS
from benchmarks.real_model.data import CACHE, make_clips, make_shards, parsed
from benchmarks.real_model.study import aligned_student, dtype_of, mean_accuracy, perform, read
from benchmarks.scale_model.report_parts import percent, table

SHORT = CACHE / "short"
RUNS = [Run(arm, LEARNING_RATE, 0, "short", dtype=native_dtype()) for arm in "AC"]


def main() -> int:
    arguments = parsed(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    began = time.monotonic()
    make_clips(SHORT, arguments.digits, SHORT_CLIPS)
    make_shards(SHORT, ["train"])
    aligned_student(SHORT)
    for run in RUNS:
        perform(run, SHORT, SHORT / "results")
    print("\n".join(compared()))
    print(f"\n{time.monotonic() - began:.0f} s")
    return 0


def compared() -> list[str]:
    """Accuracy by task of each run now, and as committed, with its dtype."""
    lines = []
    for run in RUNS:
        for when, result in (("now", read(run, SHORT / "results")), ("committed", read(run))):
            if result is not None:
                hits = result["hits"]["test"]
                cells = [percent(mean_accuracy({task: hits[task]})) for task in TASKS]
                lines.append([f"{run.arm}, {when} ({dtype_of(result['run'])})", *cells, percent(mean_accuracy(hits))])
    return table([f"{STEPS['short']} steps", *TASKS, "mean"], lines)


if __name__ == "__main__":
    sys.exit(main())
