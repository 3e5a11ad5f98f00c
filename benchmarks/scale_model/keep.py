"""One run of the comparison, kept, with its test clips as shards: what coat's own commands are tried on.

python -m benchmarks.scale_model.keep --arm C --out runs/scale-C      trains it anew, as the sweep does; two minutes

    OUT/run      as `coat train` leaves it
    OUT/shards   the first test clips, a row a question: `task` is the question, `donor` the same question of the clip
                 before, as the causal tests have it; the truth about the clip beside. Experts' targets are with the
                 first question of each clip.

The sweep trains on batches of its own (data.py), so that OUT/run names shards of training clips without questions.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.scale_model.arms import ARMS, MORE_SEEDS, SEEDS, STEPS, Run
from benchmarks.scale_model.corpus import EXPERTS, QUESTIONS
from benchmarks.scale_model.data import CACHE, TARGET_HZ, Clips, load_split, prepare
from benchmarks.scale_model.measure import BATCH
from benchmarks.scale_model.results import CAUSAL_CLIPS, Place
from benchmarks.scale_model.sweep import REGIMES, chosen
from benchmarks.scale_model.training import Trained, student_of, train_in
from coat.manifests.corpus.writing import write_rows
from coat.manifests.shards.index import ShardIndex

DONOR = "donor"


def keep(
    run: Run, cache: Path, clips: Clips, out: Path, tested: int = CAUSAL_CLIPS, experts: Sequence[str] = EXPERTS
) -> Trained:
    """Deterministic, as the sweep's runs are. `clips`: of the training."""
    if run.through_block:
        raise SystemExit(f"{run.name}: its questions do not see the audio, which coat's own commands do not know")
    torch.set_num_threads(1)
    trained = train_in(out / "run", run, student_of(run, cache), cache, clips, None)
    write_shards(run, cache, out, tested, experts)
    return trained


def write_shards(run: Run, cache: Path, out: Path, tested: int, experts: Sequence[str]) -> ShardIndex:
    from coat.pipeline.cluster.resources import Resources
    from coat.pipeline.extraction.extraction import extract
    from coat.pipeline.reductions.options import ReductionOptions
    from coat.pipeline.shards.build import build_shards

    corpus = cache / "corpus"
    clips = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    test = [clip for clip in clips if clip["split"] == "test"][:tested]
    rows = list(rows_of(test, corpus.absolute(), run.questions))
    manifest, heard, store = (str(out / name) for name in ("test.jsonl", "heard.jsonl", "targets"))
    write_rows(manifest, rows)
    write_rows(heard, rows[:: len(run.questions)])
    extract(heard, store, experts, resources=Resources(workers=0))
    options = ReductionOptions.parse(rate=f"{TARGET_HZ}")
    return build_shards(
        manifest, store, experts, str(out / "shards"), missing="mask", seed=None, overwrite=True,
        reduction_options=options,
    )  # fmt: skip


def rows_of(clips: Sequence[Mapping[str, Any]], corpus: Path, questions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All questions of one clip behind each other."""
    for n, clip in enumerate(clips):
        batch = range(n - n % BATCH, min(n - n % BATCH + BATCH, len(clips)))
        donor = clips[n - 1 if n > batch.start else batch.stop - 1]
        for question in questions:
            asked, answer = QUESTIONS[question], clip["truth"][question]
            yield {
                "id": f"{clip['id']}-{question}",
                "audio_filepath": str(corpus / clip["audio_filepath"]),
                "duration": clip["duration"],
                "prompt": asked.asked(answer),
                "response": answer,
                "task": question,
                DONOR: f"{donor['id']}-{question}",
                **clip["truth"],
            }


def command(run: Run, out: Path) -> str:
    """That gives the table of the causal tests."""
    pool = BATCH * len(run.questions)
    what = "--do block:other --do block:mean --do block:zero " if run.has_block else ""
    return (
        f"coat intervene --run {out / 'run'} --shards {out / 'shards'} --donor {DONOR} --pool {pool} "
        f"{what}--do audio:other"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regime", choices=REGIMES, default="scratch")
    parser.add_argument("--arm", choices=(*ARMS, "E"), default="C")
    parser.add_argument("--seed", type=int, choices=MORE_SEEDS, default=SEEDS[0])
    parser.add_argument("--clips", type=int, default=CAUSAL_CLIPS, help="test clips in the shards")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    prepare(CACHE)
    lr = chosen(Place(CACHE), arguments.regime, arguments.arm)
    run = Run(arguments.regime, arguments.arm, lr, arguments.seed, "final", STEPS[arguments.regime])
    keep(run, CACHE, load_split(CACHE, "train"), arguments.out, arguments.clips)
    print(command(run, arguments.out))


if __name__ == "__main__":
    main()
