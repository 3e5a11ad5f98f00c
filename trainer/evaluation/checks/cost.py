"""What an answer costs: some rows are asked one by one with a clock, of whoever is evaluated and of its base student.

The paper's comparison: a block is read in the one prefill and adds nothing to decoding; thinking in text is decoded.
E/cost.json, apart from results.json: times differ from run to run.
"""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from coat.manifests import AudioError, Clip, InputError, storage
from coat.trainer.evaluation.asking.ask import Ask, Timed
from coat.trainer.evaluation.asking.audio import clip_of
from coat.trainer.evaluation.results import Part

COST = "cost.json"
FORMAT = "coat-cost/1"
Timer = Callable[[Ask, Clip | None], Timed]


class Quantiles(Part):
    """Seconds."""

    p50: float
    p95: float


class ModeCost(Part):
    """Of `rows` answers, each asked alone, after one that is not counted. Tokens are means."""

    rows: int
    first_token: Quantiles | None  # from the decoded audio to the first token; None: a server that does not say
    total: Quantiles
    tokens_per_s: float | None  # decoded behind the first one; None: there are none
    prompt_tokens: float | None
    block_tokens: float | None
    answer_tokens: float | None


class Cost(Part):
    format: Literal["coat-cost/1"] = FORMAT
    device: str
    threads: int
    modes: dict[str, ModeCost] = Field(min_length=1)  # run, student, "student, thinking in text", server

    @classmethod
    def read(cls, folder: Path) -> "Cost | None":
        """None where nothing was measured."""
        file = folder / COST
        return cls.model_validate(storage.read_json(str(file))) if file.exists() else None


def measure(asks: Mapping[str, Sequence[Ask]], timers: Callable[[str], Any], device: str, threads: int) -> Cost | None:
    """By mode; `timers(mode)` is a context that gives its Timer. None where no row can be asked."""
    modes = {}
    for mode, of_mode in asks.items():
        with timers(mode) as timer:
            timed = list(timed_answers(of_mode, timer))
        if len(timed) > 1:
            modes[mode] = summary(timed[1:])  # the first warms up
    return Cost(device=device, threads=threads, modes=modes) if modes else None


def timed_answers(asks: Sequence[Ask], timer: Timer) -> Iterator[Timed]:
    """The first twice. Rows that cannot be asked are left out: the evaluation itself says why."""
    for i, ask in enumerate(asks):
        try:
            clip = clip_of(ask)
            for _ in range(2 if i == 0 else 1):
                yield timer(ask, clip)
        except (AudioError, InputError):
            continue


def summary(timed: Sequence[Timed]) -> ModeCost:
    firsts = [t.first_token for t in timed if t.first_token is not None]
    behind = [(t.answer_tokens - 1, t.seconds - t.first_token) for t in timed if t.first_token and t.answer_tokens]
    decoded, seconds = sum(n for n, _ in behind), sum(s for _, s in behind)
    return ModeCost(
        rows=len(timed),
        first_token=quantiles(firsts) if firsts else None,
        total=quantiles([t.seconds for t in timed]),
        tokens_per_s=round(decoded / seconds, 3) if decoded and seconds > 0 else None,
        prompt_tokens=mean([t.prompt_tokens for t in timed]),
        block_tokens=mean([t.block_tokens for t in timed]),
        answer_tokens=mean([t.answer_tokens for t in timed]),
    )


def quantiles(seconds: Sequence[float]) -> Quantiles:
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return Quantiles(p50=round(float(p50), 6), p95=round(float(p95), 6))


def mean(tokens: Sequence[int | None]) -> float | None:
    known = [t for t in tokens if t is not None]
    return round(sum(known) / len(known), 2) if known else None


class Clock:
    """When tokens come: a streamer of transformers' generate, which is given the prompt first."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def machine() -> tuple[str, int]:
    """What computes here, and with how many threads."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return device, torch.get_num_threads()
