"""What thinking costs when a student is asked: the block is a few positions more in the one prefill.

A Qwen2-Audio of its true class with random weights (what is generated does not matter, how long it takes does), asked
about a clip of 10 s by `Trained`'s own inputs and plain `generate`, which is made to give exactly so many tokens.
Everything that is compared runs in turns on one student: without a block, with blocks of several lengths, and without a
block but with a chain of thought in text, of so many tokens before the answer.

Decoding: tokens a second from the first to the last, stamped by a streamer. Each token reads all weights and the whole
KV cache, which the block makes longer by 34 of some 400 positions. Of Qwen2-Audio-7B in bfloat16 the weights are
16 GB, the block's keys and values 18 MB: a smaller share still.
"""

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.common import CPUS, Figure, Results, format_range, judged, median, results, speech_like
from benchmarks.cost_training import HOME, RATE, STUDENT_S, prepare

LENGTHS = (0, 8, 32, 64, 128)  # K
K = 32
ANSWER = 16  # tokens
CHAINS = (50, 100, 200)  # tokens of a chain of thought
DECODED = 48  # tokens, for the rate
TOLERANCE = 0.03
PROMPT = "What do you hear, and how does it change?"


class Stamps:
    """A streamer that only looks at the clock: at the prompt, then at every token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _ids: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class Asked:
    """One student, with a block of K positions or none."""

    def __init__(self, student: Any, count: int) -> None:
        from coat.trainer import TrainConfig
        from coat.trainer.generation.generate import Trained
        from coat.trainer.model.thinking import ThinkingBlock

        config = TrainConfig.from_dict(
            {
                "student": {"path": student.source},
                "thinking": {"count": count},
                "data": {"shards": str(HOME / "shards")},
                "run": {"out": str(HOME / "run-asked")},
            },
            "benchmark",
        )
        self.trained = Trained(student, ThinkingBlock.add_to(student, config.thinking), config)
        rng = np.random.default_rng(9)
        audio = speech_like(rng, STUDENT_S * RATE, RATE), RATE
        self.inputs = self.trained.inputs([(audio, PROMPT, ())])
        self.positions = self.inputs["input_ids"].shape[1]

    def times(self, tokens: int) -> tuple[float, float]:
        """Seconds to the first of so many tokens, and from there to the last. The features are made already."""
        import torch

        student, stamps = self.trained.student, Stamps()
        with torch.inference_mode():
            started = time.perf_counter()
            ids_BT = student.model.generate(
                **self.inputs,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                do_sample=False,
                suppress_tokens=self.trained.block.new_ids or None,
                eos_token_id=student.chat.stop_ids,
                pad_token_id=student.tokenizer.pad_token_id,
                streamer=stamps,
            )
        assert ids_BT.shape[1] - self.positions == tokens == len(stamps.times) - 1
        return stamps.times[1] - started, stamps.times[-1] - stamps.times[1]


def ratios(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def decoding(asked: dict[int, Asked], rounds: int, found: Results) -> None:
    rates: dict[int, list[float]] = {0: [], K: []}
    for turn in range(rounds):
        for count in (0, K) if turn % 2 else (K, 0):  # neither is always first
            rates[count].append((DECODED - 1) / asked[count].times(DECODED)[1])
    ratio = ratios(rates[K], rates[0])
    met = judged(abs(median(ratio) - 1) <= TOLERANCE, rates[0])
    behind = f"{DECODED} tokens behind {asked[0].positions} and {asked[K].positions}"
    note = f"{median(rates[0]):.0f} tokens/s without; {behind}"
    claim = f"decoding, tokens/s with a block of {K} / without"
    found.add(Figure(claim, format_range(ratio), f"1.00 within {TOLERANCE:.0%}", met, note))
    found.data["decoding"] = rates


def first_token(asked: dict[int, Asked], rounds: int, found: Results) -> None:
    seconds: dict[int, list[float]] = {count: [] for count in LENGTHS}
    for _ in range(rounds):
        for count, student in asked.items():
            seconds[count].append(student.times(1)[0])
    against = {count: median(ratios(seconds[count], seconds[0])) for count in LENGTHS[1:]}
    value = ", ".join(f"{ratio:.2f}" for ratio in against.values())
    places = ", ".join(f"{asked[c].positions / asked[0].positions:.2f}" for c in LENGTHS[1:])
    note = f"{1000 * median(seconds[0]):.0f} ms without; positions {places} of {asked[0].positions}"
    claim = f"time to the first token, block of {', '.join(map(str, LENGTHS[1:]))} / none"
    found.add(Figure(claim, value, note=note))
    found.data["first token"] = seconds


def chains(asked: dict[int, Asked], rounds: int, found: Results) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in ("block", *map(str, CHAINS))}
    for _ in range(rounds):
        seconds["block"].append(sum(asked[K].times(ANSWER)))
        for chain in CHAINS:
            seconds[str(chain)].append(sum(asked[0].times(chain + ANSWER)))
    ratio = {chain: ratios(seconds[str(chain)], seconds["block"]) for chain in CHAINS}
    value = ", ".join(f"{median(r):.1f}" for r in ratio.values())
    met = judged(min(median(r) for r in ratio.values()) > 1, seconds["block"])
    note = f"{1000 * median(seconds['block']):.0f} ms with a block of {K}, an answer of {ANSWER} tokens in each"
    claim = f"whole answer, behind {', '.join(map(str, CHAINS))} tokens of text / behind a block"
    found.add(Figure(claim, value, "> 1", met, note))
    found.data["chains"] = seconds


def measure(rounds: int, found: Results) -> None:
    import torch

    from coat.trainer.students.registry import load_student

    torch.set_num_threads(CPUS)
    student = load_student(str(prepare() / "student"))
    asked = {count: Asked(student, count) for count in sorted(LENGTHS, reverse=True)}  # the longest adds all tokens
    for one in asked.values():
        one.times(4)  # warms up
    decoding(asked, 3 * rounds, found)
    first_token(asked, rounds, found)
    chains(asked, max(1, rounds // 2), found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with results("cost_inference") as found:
        measure(arguments.rounds, found)


if __name__ == "__main__":
    main()
