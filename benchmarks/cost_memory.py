"""What the trainer needs that reads targets beside the one that runs the experts itself: memory and time of a step.

Two processes train the same student, heads and clips in the same batches; one takes the targets from the shards, the
other hears each batch with the experts, in the trainer's process, as an online trainer would. Both report the largest
resident memory of their own (VmHWM: getrusage's begins at the parent's), the experts' parameters in bytes, and seconds
a step. Their losses must agree, or the script stops: stored targets are the same but for float16.

The experts are real and small: Whisper tiny.en (COAT_WHISPER_DIR, else random weights of its shape), YAMNet in 8 bits,
SwiftF0. What is saved grows with the experts; it does not with the student.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import CPUS, Figure, Results, median, results, whisper
from benchmarks.cost_training import BATCH, HOME, make_run, prepare

EXPERTS = ("whisper", "yamnet", "pitch")
SAME = 0.01  # of the losses: float16


def online_experts() -> dict[str, Any]:
    from coat.extractors.expert import Options
    from coat.extractors.registry import create

    experts = {
        name: create(name, Options(checkpoint=str(whisper()[0]) if name == "whisper" else None)) for name in EXPERTS
    }
    for expert in experts.values():
        expert.load("cpu")
    return experts


def parameter_bytes(experts: dict[str, Any]) -> int:
    """Of the weights: torch's parameters, and the ONNX models as they lie on disk."""
    from coat.extractors.checkpoints.checkpoint import package_folder
    from coat.extractors.experts.yamnet import read_model

    model, external = read_model(experts["yamnet"].path)
    held = len(model) + sum(map(len, external.values())) + (package_folder("swift_f0") / "model.onnx").stat().st_size
    return held + sum(p.numel() * p.element_size() for p in experts["whisper"].model.parameters())


def heard(samples: Sequence[Any], experts: dict[str, Any]) -> list[Any]:
    """The samples with what the experts hear now in place of what was stored."""
    from coat.manifests import Clip

    targets: list[dict[str, Any]] = [{} for _ in samples]
    for name, expert in experts.items():
        clips = [Clip(s.samples_S, s.sample_rate).at(expert.spec.sample_rate) for s in samples]
        for target, frames_ND in zip(targets, expert.extract(clips), strict=True):
            target[name] = frames_ND
    return [replace(s, targets=target) for s, target in zip(samples, targets, strict=True)]


def child(kind: str, steps: int) -> dict[str, Any]:
    """One of the two processes: trains, and says what it took."""
    import torch

    from coat.trainer import iterate_shards
    from coat.trainer.training.step.measurements import peak_memory

    torch.set_num_threads(CPUS)
    run = make_run(f"memory-{kind}", 32, EXPERTS)
    collator, config = run.loader.collator, run.config.data
    samples = list(iterate_shards(config.shards))
    experts = online_experts() if kind == "online" else {}
    seconds, losses = [], []
    for step in range(steps):
        at = step * BATCH % len(samples)
        started = time.perf_counter()
        batch = samples[at : at + BATCH]
        if experts:
            batch = heard(batch, experts)
        run.trainer.step([collator.collate([collator.encode(s, config) for s in batch])])
        seconds.append(time.perf_counter() - started)
        losses.append({name: value for name, value in run.trainer.meter.means().items() if name.startswith("distill/")})
        run.trainer.meter.clear()
    return {
        "peak_mb": peak_memory(torch.device("cpu")) * 1024,
        "trainer_mb": sum(p.numel() * p.element_size() for p in run.model.parameters()) / 2**20,
        "experts_mb": parameter_bytes(experts) / 2**20 if experts else 0.0,
        "seconds": seconds[1:],
        "losses": losses,
    }


def in_a_process(kind: str, steps: int) -> dict[str, Any]:
    answer = Path(HOME / f"{kind}.json")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cost_memory", "--child", kind, "--steps", str(steps)]
    subprocess.run([*command, "--answer", str(answer)], check=True)
    return json.loads(answer.read_text())


def measure(steps: int, found: Results) -> None:
    prepare()
    cached, online = (in_a_process(kind, steps) for kind in ("cached", "online"))
    for stored, now in zip(cached["losses"], online["losses"], strict=True):
        assert len(stored) == len(now) == len(EXPERTS), (stored, now)
        assert all(abs(now[name] - value) <= SAME * abs(value) for name, value in stored.items()), (stored, now)
    saved = online["peak_mb"] - cached["peak_mb"]
    note = (
        f"{cached['peak_mb']:.0f} and {online['peak_mb']:.0f} MB resident at most; parameters of the trainer "
        f"{cached['trainer_mb']:.0f} MB, of the experts {online['experts_mb']:.1f} MB in the other; "
        f"{whisper()[1]}, YAMNet in 8 bits, SwiftF0; the same losses within 1%"
    )
    claim = "memory of the trainer with stored targets / with the experts in its process"
    value = f"{cached['peak_mb'] / online['peak_mb']:.3f} ({saved:.0f} MB less)"
    found.add(Figure(claim, value, "< 1", saved > 0, note))
    took = [median(x["seconds"]) for x in (cached, online)]
    claim = "seconds a step, stored targets / experts in the trainer's process"
    note = f"{took[0]:.2f} and {took[1]:.2f} s; in two processes, one after the other; a student of 20 million weights"
    found.add(Figure(claim, f"{took[0] / took[1]:.3f}", note=note))
    found.data["memory"] = {"cached": cached, "online": online}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--child", choices=("cached", "online"), help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        arguments.answer.write_text(json.dumps(child(arguments.child, arguments.steps)))
        return
    with results("cost_memory") as found:
        measure(arguments.steps, found)


if __name__ == "__main__":
    main()
