"""What thinking costs where it is served: vLLM on CPUs, asked over HTTP, one request at a time.

One server has a Qwen2-Audio of its true class with random weights, exported with its block. In turns it is asked with
the block; without (the request brings the student's own chat template); and without, for a chain of thought in text
of 50, 100 and 200 tokens before the answer. Caches are off and every request has another audio, so that each prefill
is computed whole. Times are of the tokens' events as they come.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, Results, format_range, judged, median, results
from benchmarks.serving.check import HOME, remove
from benchmarks.serving.server import MODEL, VllmServer, vllm_server
from benchmarks.serving.students import K, trained_run
from benchmarks.serving.venvs import python_of
from coat.trainer import export_run, load_run
from coat.trainer.evaluation.asking.chat import ChatClient
from coat.trainer.evaluation.asking.server import messages_of
from coat.trainer.evaluation.asking.streaming import events
from coat.trainer.generation.generate import Trained
from coat.trainer.serving.questions import Served, made_here

ANSWER = 16  # tokens
CHAINS = (50, 100, 200)  # tokens of a chain of thought
DECODED = 48  # tokens, for the rate
SECONDS, SOUNDS = 10.0, 1000  # of each audio, and how many there are
# Large enough that its layers, not Python, take the time.
SIZES: dict[str, Any] = {"hidden": 384, "heads": 6, "text_layers": 6, "audio_layers": 2, "weights_std": 0.05}
OPTIONS = (
    "--dtype", "float32", "--max-model-len", "2048", "--enforce-eager", "--no-enable-prefix-caching",
    "--mm-processor-cache-gb", "0", "--trust-request-chat-template",
)  # fmt: skip


@dataclass(frozen=True)
class Times:
    """Seconds from the request to the first token and to the last; positions of the prompt."""

    first: float
    last: float
    positions: int
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second behind the first."""
        return (self.tokens - 1) / (self.last - self.first)


class Asked:
    """A server that is asked, each time about another sound."""

    def __init__(self, server: VllmServer, trained: Trained, template: str) -> None:
        self.client, self.template = ChatClient(server.url, MODEL), template
        self.sounds = made_here(trained.student, SOUNDS, (SECONDS, SECONDS))

    def times(self, tokens: int, block: bool) -> Times:
        one: Served = next(self.sounds)
        body = self.client.asked(messages_of("What is heard?", (), one.wav), tokens)
        body |= {"min_tokens": tokens, "ignore_eos": True, "return_token_ids": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        if not block:
            body["chat_template"] = self.template
        began = time.perf_counter()
        response = self.client.send("POST", "/chat/completions", body, preload=False)
        first, last, said, positions = 0.0, 0.0, 0, 0
        for event in events(response):
            positions = (event.data.get("usage") or {}).get("prompt_tokens", positions)
            for choice in event.data.get("choices") or ():
                if ids := choice.get("token_ids"):
                    first, last, said = first or event.at, event.at, said + len(ids)
        response.release_conn()
        assert said == tokens, f"{said} tokens came, {tokens} were asked for"
        return Times(first - began, last - began, positions, said)


def measure(asked: Asked, rounds: int, found: Results) -> None:
    for block in (True, False):
        asked.times(4, block)  # warms up
    with_block, without = [], []
    for turn in range(3 * rounds):
        for block in (False, True) if turn % 2 else (True, False):  # neither is always first
            (with_block if block else without).append(asked.times(DECODED, block))
    positions = with_block[0].positions - without[0].positions
    assert positions == K + 2, f"the block is {positions} positions, not {K + 2}"
    first = [a.first / b.first for a, b in zip(with_block, without, strict=True)]
    rate = [a.rate / b.rate for a, b in zip(with_block, without, strict=True)]
    seconds = [one.first for one in without]
    note = f"{1000 * median(seconds):.0f} ms without; {positions} positions more, of some {without[0].positions}"
    found.add(Figure(f"vLLM: time to the first token, block of {K} / none", format_range(first), note=note))
    note = f"{median([one.rate for one in without]):.0f} tokens/s without; {DECODED} tokens"
    found.add(Figure(f"vLLM: decoding, tokens/s with a block of {K} / without", format_range(rate), note=note))
    times: dict[str, list[Times]] = {name: [] for name in ("block", *map(str, CHAINS))}
    for _ in range(rounds):
        times["block"].append(asked.times(ANSWER, True))
        for chain in CHAINS:
            times[str(chain)].append(asked.times(chain + ANSWER, False))
    whole = [one.last for one in times["block"]]
    ratios = [median([a.last / b for a, b in zip(times[str(chain)], whole, strict=True)]) for chain in CHAINS]
    note = f"{1000 * median(whole):.0f} ms with a block of {K}, an answer of {ANSWER} tokens in each"
    claim = f"vLLM: whole answer, behind {', '.join(map(str, CHAINS))} tokens of text / behind a block"
    value = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    found.add(Figure(claim, value, "> 1", judged(min(ratios) > 1, whole), note))
    found.data |= {name: [vars(one) for one in of] for name, of in times.items()}
    found.data |= {"with": [vars(one) for one in with_block], "without": [vars(one) for one in without]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, default=HOME, help="environments, student, export, log")
    arguments = parser.parse_args()
    home: Path = arguments.home
    python = python_of("vllm", home)
    with results("serving") as found:
        run = trained_run("qwen2-audio", home / "speed", **SIZES)
        trained, out = load_run(run.path, "cpu"), home / "speed" / "export"
        template = trained.student.processor.chat_template  # as the student had it
        remove(out)
        export_run(run.path, out, merged=True, target="vllm")
        with vllm_server(python, out, home / "speed" / "server.log", OPTIONS) as server:
            measure(Asked(server, trained, template), arguments.rounds, found)


if __name__ == "__main__":
    main()
