"""How near coat's batches come to the model's own best speed, and what preparing its input costs beside it.

Each model hears the same clips in batches of several budgets, one clip at a time among them; the seconds inside
the model alone are compared, in turns. The rest of `extract` (features, padding, copies) is given as a share.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import (
    CPUS,
    MODELS,
    ROOT,
    Figure,
    Results,
    corpus,
    format_range,
    judged,
    median,
    options_of,
    results,
)
from coat.extractors.expert import CPU_BATCH_S, Expert, Options, Waveform
from coat.extractors.registry import create
from coat.extractors.windows import padded_batches
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest

CLIPS = {"whisper": 12, "wav2vec2": 32, "ast": 8}
BUDGETS = (0.0, 15.0, CPU_BATCH_S, 60.0, 120.0)  # seconds of a batch; 0: one clip at a time
INSIDE = {"whisper": "encode", "wav2vec2": "model", "ast": "model"}  # what of the expert is the model
TARGET = 0.9


class Timed:
    """A callable, and the seconds spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        found = self.function(*args, **kwargs)
        self.seconds += time.perf_counter() - started
        return found


def random_ast() -> tuple[Any, str]:
    """Of AST's shape at a third of its width: its cost, like the true one's, is 10 s a clip."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    folder = ROOT / "ast-random"
    if not folder.exists():
        torch.manual_seed(0)
        config = ASTConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024)
        ASTModel(config).save_pretrained(folder)
        ASTFeatureExtractor().save_pretrained(folder)
    return folder, "ast (6 layers of 256, random weights)"


def passed(expert: Expert, model: Timed, clips: Sequence[Waveform], budget: float) -> tuple[float, float]:
    """Seconds inside the model, and of all, for the clips in batches of a budget."""
    model.seconds, started = 0.0, time.perf_counter()
    for batch in padded_batches(clips, lambda x: expert.padded_samples(len(x)), budget * expert.spec.sample_rate):
        expert.extract(batch)
    return model.seconds, time.perf_counter() - started


def measure(name: str, rounds: int, found: Results) -> None:
    folder, label = random_ast() if name == "ast" else MODELS[name]()
    expert = create(name, Options(checkpoint=str(folder)) if name == "ast" else options_of(name))
    expert.load("cpu")
    model = Timed(getattr(expert, INSIDE[name]))
    setattr(expert, INSIDE[name], model)
    rate = expert.spec.sample_rate
    manifest = Manifest.read(str(corpus(CLIPS[name], seed=5)))
    clips = sorted((decode(u.audio).at(rate)[: round(expert.window_s * rate)] for u in manifest), key=len)
    passed(expert, model, clips, max(BUDGETS))  # memory grows to what the largest batch takes
    seconds: dict[float, list[float]] = {budget: [] for budget in BUDGETS}
    rest: list[float] = []
    for _ in range(rounds):
        for budget in BUDGETS:
            inside, everything = passed(expert, model, clips, budget)
            seconds[budget].append(inside)
            if budget == CPU_BATCH_S:
                rest.append(1 - inside / everything)
    ratios = [min(seconds[b][i] for b in BUDGETS) / seconds[CPU_BATCH_S][i] for i in range(rounds)]
    best = min(BUDGETS, key=lambda b: median(seconds[b]))
    by_budget = ", ".join(f"{b:g} s {median(seconds[b]):.1f}" for b in BUDGETS)
    found.add(
        Figure(
            f"Batches of {CPU_BATCH_S:g} s / the best size for the model: {label}",
            format_range(ratios),
            f">= {TARGET}",
            judged(median(ratios) >= TARGET, seconds[best]),
            f"features, padding, copies: {median(rest):.1%} of `extract`; seconds in the model by batch: {by_budget}",
        )
    )
    found.data[name] = {"seconds_by_budget": {str(b): s for b, s in seconds.items()}, "rest": rest, "ratios": ratios}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--expert", choices=list(INSIDE), action="append")
    parser.add_argument("--give-back", action="store_true", help="Freed memory goes back to the kernel, as glibc does.")
    arguments = parser.parse_args()
    from coat.extractors.devices import keep_freed_memory

    torch.set_num_threads(CPUS)
    if not arguments.give_back:
        keep_freed_memory()  # as a worker does
    with results("experts") as found:
        for name in arguments.expert or INSIDE:
            measure(name, arguments.rounds, found)


if __name__ == "__main__":
    main()
