"""What a target depends on beside its clip: workers, threads, batch mates, units.

Stores are float32, as float16 hides small differences. A difference is the largest one of a clip, of that clip's
largest value; the worst of all clips is given.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.common import CPUS, MODELS, ROOT, Figure, corpus, options_of, random_wav2vec2, ray_of, results, run
from coat.extractors.expert import Options
from coat.extractors.experts.wav2vec2 import Wav2Vec2
from coat.extractors.experts.whisper import Whisper
from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.cluster.ray_connection import connected
from coat.pipeline.cluster.resources import Cluster, Resources
from coat.pipeline.store.target_store import TargetStore

CLIPS = {"wav2vec2": 48, "whisper": 10}
TOLERANCE = 1e-4  # what the conformance suite asks of every expert


class AloneWav2Vec2(Wav2Vec2):
    batch_seconds = 0.001  # a clip a batch


class AloneWhisper(Whisper):
    batch_seconds = 0.001


ALONE = {"wav2vec2": "AloneWav2Vec2", "whisper": "AloneWhisper"}


def difference(a: Path, b: Path, expert: str, utterances: Iterable, convert: Callable = np.asarray) -> float:
    """0.0 where every target of `utterances` has the same bits in both stores."""
    ours, theirs = (TargetStore(str(store)).target_set(expert) for store in (a, b))
    worst = 0.0
    for u in utterances:
        x, y = convert(ours.read(u).frames), convert(theirs.read(u).frames)
        assert x.shape == y.shape, (u.id, x.shape, y.shape)
        if not np.array_equal(x, y):
            worst = max(worst, float(np.abs(x - y).max() / np.abs(x).max()))
    return worst


def shown(value: float) -> str:
    return f"{value:.1e}" if value else "equal bits"


def main() -> None:
    with (
        results("invariance") as found,
        connected(Cluster(workers=2, cpus_per_worker=float(CPUS))),
    ):  # one Ray: no run is timed
        for expert, clips in CLIPS.items():
            path = corpus(clips, seed=4)
            manifest = Manifest.read(str(path))
            if expert == "whisper":
                options, label = options_of("whisper", dtype="float32"), MODELS["whisper"]()[1]
            else:
                folder, label = random_wav2vec2(hidden=192, layers=4, conv=64)
                options = Options(checkpoint=str(folder), dtype="float32")
            base = ROOT / f"invariance-{expert}"
            run(path, base / "here", expert, options, Resources(workers=0, device="cpu"))

            def differs(name: str, resources: Resources, of: str = "", rows: Path = path) -> float:
                run(rows, base / name, of or expert, options, resources)  # noqa: B023  used within its turn
                return difference(base / "here", base / name, expert, Manifest.read(str(rows)))  # noqa: B023

            same = {n: differs(f"{n}-workers", ray_of(CPUS, n)) for n in (1, 2)}
            found.add(
                Figure(
                    f"0, 1 and 2 workers of {CPUS} threads: {label}",
                    shown(max(same.values())),
                    "equal bits",
                    max(same.values()) == 0,
                    "differences between the stores; same batches, same threads",
                )
            )
            threads = differs("one-thread", ray_of(1, 2))
            halved = path.parent / "half.jsonl"
            Manifest(list(manifest)[::2]).write(str(halved))
            here = Resources(workers=0, device="cpu")
            mates = differs("half", here, rows=halved)
            alone = differs("alone", here, of=f"benchmarks.invariance:{ALONE[expert]}")
            for claim, value, note in (
                (f"1 thread a worker against {CPUS}", threads, "sums are split over the threads"),
                ("Half the corpus: other units, other batch mates", mates, "matrix products of other shapes"),
                ("Each clip in a batch of its own", alone, "matrix products of other shapes"),
            ):
                found.add(Figure(f"{claim}: {label}", shown(value), f"< {TOLERANCE:g}", value < TOLERANCE, note))
            found.data[expert] = {
                "workers, same threads": same,
                "one thread": threads,
                "half the corpus": mates,
                "alone": alone,
            }


if __name__ == "__main__":
    main()
