"""What CoAT costs in training: a step with thinking block and heads beside plain fine-tuning of the same student.

Both are the trainer's own steps (forward, backward, clipping, AdamW) under LoRA, on the same clips in the same batches,
in turns. Three of them: plain; with the block, not distilled; with block and five heads. The student is a Qwen2-Audio
of its true class with random weights, large enough that its layers, not Python, take the time; the targets were
extracted.

What a block must cost is its positions: the ratio of positions is given beside that of times. Heads cost the same
whatever the student, so their share here is far above that of a student of 7 billion: the floating-point operations
of both are counted (torch's FlopCounterMode for the heads; 4 a weight and position for a language model under LoRA,
2 for its frozen audio tower).
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.common import CPUS, ROOT, Figure, Results, format_range, judged, median, results, speech_like, whisper
from coat.extractors.expert import Options
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shards.build import build_shards

HOME = ROOT / "cost"
EXPERTS = ("mel", "whisper", "yamnet", "prosody", "pitch")  # two that represent, three with a task
CLIPS, BATCH, RATE = 8, 2, 16000
STUDENT_S = 10  # the longest audio that the student hears
K = 32  # think positions: the default
TOLERANCE = 0.05
# Qwen2-Audio-7B, weights in matrices: 32 layers of 4096 with 11008 between; 32 of 1280 with 5120 between.
TEXT_WEIGHTS = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
TOWER_WEIGHTS = 32 * (4 * 1280**2 + 2 * 1280 * 5120)
TOWER_POSITIONS = 1500  # 30 s, whatever the clip


def prepare() -> Path:
    """The folder with student and shards, made once."""
    from coat.trainer.tiny_students.make import make_tiny_student

    if (HOME / "shards" / "index.json").exists():
        return HOME
    shutil.rmtree(HOME, ignore_errors=True)
    (HOME / "audio").mkdir(parents=True)
    rng = np.random.default_rng(8)
    rows = []
    for i, seconds in enumerate(rng.uniform(0.8 * STUDENT_S, STUDENT_S, CLIPS)):
        samples_T = speech_like(rng, int(seconds * RATE), RATE)
        soundfile.write(HOME / "audio" / f"c{i:02d}.flac", samples_T, RATE)
        rows.append(
            {
                "id": f"c{i:02d}",
                "audio_filepath": f"audio/c{i:02d}.flac",
                "duration": len(samples_T) / RATE,
                "prompt": "What do you hear, and how does it change?",
                "response": "A voice of syllables in faint noise; its pitch rises and falls.",
            }
        )
    manifest, store = HOME / "manifest.jsonl", str(HOME / "targets")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in EXPERTS:
        options = Options(checkpoint=str(whisper()[0])) if name == "whisper" else None
        extract(str(manifest), store, [name], options, Resources(workers=0))
    make_tiny_student(HOME / "student", hidden=384, text_layers=6, audio_layers=2, heads=6, seconds=STUDENT_S)
    build_shards(str(manifest), store, EXPERTS, str(HOME / "shards"))
    return HOME


def make_run(name: str, count: int, experts: tuple[str, ...]) -> Any:
    """`count` is K."""
    from coat.trainer import TrainConfig

    home = prepare()
    config = TrainConfig.from_dict(
        {
            "student": {"path": str(home / "student")},
            "thinking": {"count": count},
            "data": {"shards": str(home / "shards"), "batch_size": BATCH, "shuffle": CLIPS, "workers": 1},
            "heads": {"experts": experts},
            "stages": [{"name": "distill", "steps": 1000}],
            "run": {"out": str(home / f"run-{name}"), "precision": "no"},
        },
        "benchmark",
    )
    return begun(config)


def begun(config: Any) -> Any:
    """A run at its first step, as `coat train` makes it of a TrainConfig whose precision is no or bf16."""
    from accelerate import Accelerator

    from coat.trainer.data.data_sets import DataSets
    from coat.trainer.run_folder import RunFolder
    from coat.trainer.training.run import TrainingRun

    folder, data = RunFolder(Path(config.run.out)), DataSets.open(config.data)
    folder.open(config, data.index, True, False)
    accelerator = Accelerator(mixed_precision=config.run.precision)
    run = TrainingRun(config, data, folder, accelerator, lambda _: None, lambda _: None)
    run.model.train()
    return run


def first_batches(run: Any, number: int) -> list[Any]:
    loading = iter(run.loader)
    batches = [next(loading) for _ in range(number)]
    loading.close()
    return batches


def operations(run: Any, batch: Any) -> int:
    """Of one pass, forward and backward; the matrix products, as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        torch.stack([*run.model(batch).values()]).sum().backward()
    run.trainer.optimizer.zero_grad()
    return counter.get_total_flops()


def measure(rounds: int, found: Results) -> None:
    import torch

    torch.set_num_threads(CPUS)
    arms = {"plain": (0, ()), "block": (K, ()), "CoAT": (K, EXPERTS)}
    runs = {name: make_run(name, count, experts) for name, (count, experts) in arms.items()}
    batches = {name: first_batches(run, 2) for name, run in runs.items()}
    assert len({tuple(b.ids for b in chosen) for chosen in batches.values()}) == 1, "the same clips"
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run.trainer.step([batches[name][turn % 2]])
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    positions = {name: sum(b.positions[0] for b in chosen) / (2 * BATCH) for name, chosen in batches.items()}
    counted = {name: operations(run, batches[name][0]) / BATCH for name, run in runs.items()}

    def ratios(a: str, b: str) -> list[float]:
        return [x / y for x, y in zip(seconds[a], seconds[b], strict=True)]

    tokens, block = positions["block"] / positions["plain"], ratios("block", "plain")
    weights = sum(p.numel() for p in runs["plain"].model.student.model.parameters())
    note = (
        f"{positions['plain']:.0f} and {positions['block']:.0f} positions a clip; {median(seconds['plain']):.2f} s "
        f"a step of {BATCH}; Qwen2-Audio of {weights / 1e6:.0f} million random weights, LoRA"
    )
    claim = f"step with a block of {K}, not distilled / plain"
    target = f"that of positions, {tokens:.3f}, within {TOLERANCE:.0%}"
    met = judged(abs(median(block) / tokens - 1) <= TOLERANCE, seconds["plain"])
    found.add(Figure(claim, format_range(block), target, met, note))
    heads, head_share = counted["CoAT"] - counted["block"], ratios("CoAT", "block")
    plain_7b = 4 * TEXT_WEIGHTS * positions["plain"] + 2 * TOWER_WEIGHTS * TOWER_POSITIONS
    block_7b = 4 * TEXT_WEIGHTS * (positions["block"] - positions["plain"])
    note = (
        f"heads of {', '.join(EXPERTS)}: {median(head_share) - 1:.0%} over the block alone, {heads / 1e9:.1f} billion "
        f"operations a clip, as many for any student: where plain Qwen2-Audio-7B takes {plain_7b / 1e9:,.0f}, "
        f"the block adds {block_7b / plain_7b:.1%} and the heads {heads / plain_7b:.2%}"
    )
    found.add(Figure("step with block and five heads / plain", format_range(ratios("CoAT", "plain")), note=note))
    found.data["training"] = {"seconds": seconds, "positions": positions, "operations": counted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with results("cost_training") as found:
        measure(arguments.rounds, found)


if __name__ == "__main__":
    main()
