"""Held-out shards beside the training: losses, accuracy and sample answers, every `evaluation.every` steps.

Nothing of it reaches the training: the data's place is another reader's, the random state is put back, and the
model is in eval mode only meanwhile (in train mode with checkpointing `generate` has no cache, and a wrong text).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator, Item, ask_of
from coat.trainer.data.decoding import decode_sample
from coat.trainer.data.samples import BadSample, RawSample, Sample
from coat.trainer.data.stream import read_whole
from coat.trainer.evaluation.evaluate import Evaluation, record
from coat.trainer.generation.generate import Question, Trained
from coat.trainer.model.batch import Batch
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.students.base import Unusable
from coat.trainer.training.ranks import gathered, summed


@dataclass(frozen=True)
class Results:
    """Of one evaluation. `values`: ce, distill/<expert>, accuracy, ... `answers`: rows of samples.jsonl."""

    values: dict[str, float]
    answers: list[dict[str, Any]]

    def __str__(self) -> str:
        """One line for the user."""
        shown = {k.removeprefix("distill/"): v for k, v in self.values.items() if k == "ce" or k.startswith("distill/")}
        line = "held out: " + " ".join(f"{name} {value:.3f}" for name, value in shown.items())
        if "accuracy" in self.values:
            line += f", {self.values['accuracy']:.0%} right (by chance {self.values['chance']:.0%})"
        if self.answers:
            first = self.answers[0]
            line += f"; {first['prompt']!r:.80}: {first['answer']!r:.80} for {first['truth']!r:.80}"
        return line


class HeldOut:
    """All ranks share the samples: each evaluates every so-manieth, and the sums are of all of them.

    Where weights are `sharded`, and layers whole only while all ranks compute them together, each rank evaluates all:
    the same in the same order. InputError: the shards lack a trained expert, or have it otherwise.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: CoatModel,
        experts: Mapping[str, ExpertInfo],
        accelerator: Accelerator,
        sharded: bool,
    ) -> None:
        self.config, self.model, self.accelerator = config, model, accelerator
        self.index = held_out_index(config, experts)
        self.collator = Collator(model.student, model.block, self.index, list(experts))
        self.rank, self.ranks = (0, 1) if sharded else (accelerator.process_index, accelerator.num_processes)

    def evaluate(self, forward: Callable[[Batch], dict[str, Tensor]]) -> Results:
        """The same on all ranks; `forward` gives sums of losses."""
        with undisturbed(self.model, self.accelerator.device, self.config.run.compile is not None):
            sums, counts, asked = self.look(forward)
        names = list(sums)
        totals = [*sums.values(), *(counts[name] for name in names), counts["samples"]]
        if self.ranks > 1:
            totals, asked = summed(self.accelerator, totals), gathered(self.accelerator, asked)
        pairs = zip(names, totals[: len(names)], totals[len(names) : -1], strict=True)
        values = {n if n == "ce" else f"distill/{n}": total / count for n, total, count in pairs if count}
        values["samples"] = totals[-1]
        return scored(values, sorted(asked, key=lambda one: one[0]))

    def look(
        self, forward: Callable[[Batch], dict[str, Tensor]]
    ) -> tuple[dict[str, float], Counter[str], list[tuple[int, Sample, str]]]:
        """Sums of this rank's losses, their counts, and what was asked: place, sample and answer."""
        sums: dict[str, float] = dict.fromkeys(["ce", *self.collator.experts], 0.0)
        counts: Counter[str] = Counter()
        asked: list[tuple[int, Sample, str]] = []
        trained = Trained(self.model.student, self.model.block, self.config)
        usable = self.usable()
        while part := list(islice(usable, self.config.data.batch_size)):
            batch = self.collator.batch([item for _, _, item in part])
            with torch.no_grad():
                for name, loss in forward(batch).items():
                    sums[name] += float(loss)
            counts.update({**batch.counts(), "samples": len(batch)})
            ask = [
                (place, s) for place, s, _ in part if place < self.config.evaluation.answers and s.response is not None
            ]
            if ask:
                prompts = [
                    Question(None if s.text_only else (s.samples_S, s.sample_rate), s.prompt or "", s.choices, s.turns)
                    for _, s in ask
                ]
                texts = trained.ask_many(prompts, max_new_tokens=self.config.evaluation.max_new_tokens)
                asked += [(place, light(s), text) for (place, s), text in zip(ask, texts, strict=True)]
        return sums, counts, asked

    def usable(self) -> Iterator[tuple[int, Sample, Item]]:
        """This rank's share of the first `evaluation.samples` in the tars, without what cannot be used."""
        for place, raw in enumerate(islice(self.raws(), self.config.evaluation.samples)):
            if place % self.ranks != self.rank:
                continue
            try:
                sample = decode_sample(raw, self.index)
                yield place, as_asked(sample, self.config), self.collator.item(sample, self.config.data)
            except (BadSample, Unusable):
                continue  # `samples` of the results says how many there were

    def raws(self) -> Iterator[RawSample]:
        for shard in self.index.shards:
            yield from read_whole(self.index, shard)


def scored(values: dict[str, float], asked: list[tuple[int, Sample, str]]) -> Results:
    """With accuracy, in all and by task, over samples that have choices."""
    evaluation, rows = Evaluation(), []
    for _, sample, text in asked:
        if sample.choices:
            record(evaluation, sample, text)
        row = {"id": sample.id, "prompt": sample.prompt, "choices": list(sample.choices)}
        rows.append({**row, "answer": text, "truth": sample.response})
    if evaluation.total.rows:
        total = evaluation.total
        values |= {"accuracy": total.accuracy, "chance": total.chance, "unparsed": total.unparsed_rate}
        values |= {"answers": total.rows}
        values |= {f"accuracy/{task}": score.accuracy for task, score in sorted(evaluation.by_task.items())}
    return Results(values, rows)


def as_asked(sample: Sample, config: TrainConfig) -> Sample:
    """With the prompt that is asked, and the response that is true, of a sample that has text alone."""
    if sample.prompt is not None:
        return sample
    prompt, response = ask_of(replace(sample, choices=()), config.data)
    return replace(sample, prompt=prompt, response=response)


def light(sample: Sample) -> Sample:
    """Without audio and targets: what is sent to the main rank."""
    return replace(sample, samples_S=sample.samples_S[:0], targets={})


@contextmanager
def undisturbed(model: CoatModel, device: torch.device, compiled: bool) -> Iterator[None]:
    """Eval mode, and everything as it was afterwards."""
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()  # no recompiling for other shapes
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), eager:
        model.eval()
        try:
            yield
        finally:
            model.train()


def held_out_index(config: TrainConfig, experts: Mapping[str, ExpertInfo]) -> ShardIndex:
    held = ShardIndex.read(config.evaluation.shards or "")
    for name, expert in experts.items():
        if name not in held.experts:
            raise InputError(
                f"evaluation.shards {held.path}: no targets of {name}, which is trained; build them with it"
            )
        found, wanted = held.experts[name].spec.fingerprint, expert.spec.fingerprint
        if found != wanted:
            raise InputError(
                f"evaluation.shards {held.path}: targets of {name} are {found}, those of the training {wanted}; "
                "build both sets with the same expert and reduction"
            )
    return held
