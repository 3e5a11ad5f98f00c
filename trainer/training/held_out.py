"""Held-out shards beside the training: losses, accuracy and sample answers, every `evaluation.every` steps.

Nothing of it reaches the training: it has a reader of its own, the random state is put back, and the model is in eval
mode only meanwhile (in train mode with checkpointing `generate` has no cache, and a wrong text).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.samples import Sample
from coat.trainer.data.usable import usable_samples, within_budget
from coat.trainer.evaluation.benchmark import ACCURACY
from coat.trainer.evaluation.benchmarks.manifest import ManifestQuestions
from coat.trainer.evaluation.predictions import Prediction
from coat.trainer.evaluation.scoring import by_group, counts, score_row
from coat.trainer.fidelity.meter import Clip, FidelityMeter
from coat.trainer.fidelity.scoring import point_figures
from coat.trainer.generation.generate import Answer, Question, Trained
from coat.trainer.model.batch import Batch
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import with_audio_losses
from coat.trainer.ranks import gather_from_ranks, sum_over_ranks
from coat.trainer.training.distributed.parallel import fsdp_plugin, whole_weights

QUESTIONS = ManifestQuestions()  # held-out samples are scored like a manifest


@dataclass(frozen=True)
class HeldOutResults:
    """Of one evaluation. `values`: ce, distill/<expert>, fidelity/<expert>/<measure>, accuracy, ... `answers`: rows of
    samples.jsonl.
    """

    values: dict[str, float]
    answers: list[dict[str, Any]]

    def __str__(self) -> str:
        """One line for the user."""
        losses = {
            k.removeprefix("distill/"): v for k, v in self.values.items() if k == "ce" or k.startswith("distill/")
        }
        line = "held out: " + " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        if "accuracy" in self.values:
            line += f", {self.values['accuracy']:.0%} right (by chance {self.values['chance']:.0%})"
        if self.answers:
            first = self.answers[0]
            line += f"; {first['prompt']!r:.80}: {first['answer']!r:.80} for {first['truth']!r:.80}"
        return line


@dataclass
class RankResults:
    """Of the samples of one rank: sums of losses, what they are divided by, and answers by the sample's number."""

    sums: dict[str, float]
    counts: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[int, Sample, Answer]] = field(default_factory=list)


class HeldOut:
    """All ranks share the samples: rank r of n evaluates samples r, r + n, ..., and results are of all of them.

    Weights that are sharded are gathered once for all of it. InputError: the shards lack a trained expert (unless the
    training data is of several sets), or have other targets of it.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: CoatModel,
        experts: Mapping[str, ExpertInfo],
        accelerator: Accelerator,
    ) -> None:
        self.config, self.model, self.experts, self.accelerator = config, model, experts, accelerator
        self.index = held_out_index(config, experts)
        self.collator = Collator(model.student, model.block, self.index, list(experts))
        self.rank, self.ranks = accelerator.process_index, accelerator.num_processes
        # Weights are float32 and bfloat16, or float32 that is gathered as bfloat16: only autocast computes with them.
        self.types_are_mixed = bool(config.student.train) or (config.lora.full and fsdp_plugin(accelerator) is not None)

    def evaluate(self, forward: Callable[[Batch], dict[str, Tensor]]) -> HeldOutResults:
        """The same on all ranks; `forward` returns sums of losses."""
        compiled = self.config.run.compile is not None
        meter = FidelityMeter(self.model, self.experts) if self.config.evaluation.fidelity else None
        with (
            evaluation_mode(self.model, self.accelerator.device, compiled),
            whole_weights(self.model, self.accelerator),
        ):
            own = self.evaluate_own(forward, meter)
        names, answers = list(own.sums), own.answers
        totals = [*own.sums.values(), *(own.counts[name] for name in names), own.counts["samples"]]
        if self.ranks > 1:
            totals = sum_over_ranks(self.accelerator, totals)
            answers = gather_from_ranks(self.accelerator, answers)
            if meter is not None:
                meter.gather(self.accelerator)
        sums, counts, samples = totals[: len(names)], totals[len(names) : -1], totals[-1]
        losses = zip(names, sums, counts, strict=True)
        values = {n if n == "ce" else f"distill/{n}": total / count for n, total, count in losses if count}
        values["samples"] = samples
        values |= fidelity_values(meter) if meter is not None else {}
        return add_accuracy(values, sorted(answers, key=lambda answer: answer[0]))

    def evaluate_own(
        self, forward: Callable[[Batch], dict[str, Tensor]], meter: FidelityMeter | None = None
    ) -> RankResults:
        """This rank's samples, in batches that are no larger than those of the training; so are those of answers, to
        their longest possible end. `meter` takes what heads say meanwhile.
        """
        losses = with_audio_losses(self.config, {name: self.index.experts[name] for name in self.collator.experts})
        results = RankResults(dict.fromkeys(["ce", *losses], 0.0))
        trained = Trained(self.model.student, self.model.block, self.config)
        size, budget = self.config.data.batch_size, self.config.data.batch_tokens
        longest = self.config.evaluation.max_new_tokens
        # `samples` of the results says how many were used
        usable = usable_samples(self.collator, self.config, self.config.evaluation.samples, self.rank, self.ranks)
        for chunk in within_budget(usable, size, budget, lambda item: len(item.encoded.ids)):
            batch = self.collator.collate([item.encoded for item in chunk])
            watched = nullcontext()
            if meter is not None:
                watched = meter.watch(batch, [Clip.of(item.sample, (0, item.number)) for item in chunk])
            with torch.no_grad(), watched:
                found = forward(batch)
            for name, value in zip(found, torch.stack([*found.values()]).tolist(), strict=True):
                results.sums[name] += value
            results.counts.update({**batch.counts(), "samples": len(batch)})
            answers = self.config.evaluation.answers
            to_ask = [item for item in chunk if item.number < answers and item.sample.response is not None]
            for asked in within_budget(iter(to_ask), size, budget, lambda item: item.encoded.response + longest):
                inputs = trained.inputs([question_of(item.sample) for item in asked])
                with self.accelerator.autocast() if self.types_are_mixed else nullcontext():
                    texts = trained.decode(trained.generate(inputs, longest))
                results.answers += [
                    (item.number, without_arrays(item.sample), text) for item, text in zip(asked, texts, strict=True)
                ]
        return results


def add_accuracy(values: dict[str, float], answers: list[tuple[int, Sample, Answer]]) -> HeldOutResults:
    """With accuracy by the strict rule, in all and by task, over samples that have choices."""
    scored, rows = [], []
    for _, sample, text in answers:
        if sample.choices:
            given = Prediction(benchmark=QUESTIONS.name, id=sample.id, answer=str(text), cut=text.is_cut)
            scored.append(score_row(QUESTIONS, sample, given))
        row = {"id": sample.id, "prompt": sample.prompt, "choices": list(sample.choices)}
        rows.append({**row, "answer": text, "truth": sample.response, "cut": text.is_cut})
    if rows:
        values |= {"cut": sum(row["cut"] for row in rows) / len(rows)}
    if scored:
        total = counts(QUESTIONS, scored)
        values |= {"accuracy": total.scores.strict[ACCURACY], "chance": total.chance or 0.0}
        values |= {"unparsed": (total.unparsed + total.empty) / total.rows, "answers": total.rows}
        by_task = by_group(QUESTIONS, scored).get("task", {})
        values |= {f"accuracy/{task}": part.scores.strict[ACCURACY] for task, part in by_task.items()}
    return HeldOutResults(values, rows)


def fidelity_values(meter: FidelityMeter) -> dict[str, float]:
    """`fidelity/<expert>/<measure>`: those that these samples have something for."""
    return {
        f"fidelity/{name}/{figure}": value
        for name, measure in meter.measures.items()
        for figure, value in point_figures(measure, meter.kept[name].clips).items()
    }


def question_of(sample: Sample) -> Question:
    audio = None if sample.text_only else (sample.samples_S, sample.sample_rate)
    return Question(audio, sample.prompt or "", sample.choices, sample.turns)


def without_arrays(sample: Sample) -> Sample:
    """Without audio and targets: little to send to the main rank."""
    return replace(sample, samples_S=sample.samples_S[:0], targets={})


@contextmanager
def evaluation_mode(model: CoatModel, device: torch.device, compiled: bool) -> Iterator[None]:
    """Eval mode within; afterwards train mode and random state are as before."""
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()  # no recompiling for other shapes
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), eager:
        model.eval()
        try:
            yield
        finally:
            model.train()


def held_out_index(config: TrainConfig, experts: Mapping[str, ExpertInfo]) -> ShardIndex:
    """With all trained experts: one that the shards lack has no loss there, as in sets of `data.sets` that lack it."""
    held_out = ShardIndex.read(config.evaluation.shards or "")
    for name, expert in experts.items():
        if name not in held_out.experts and config.data.sets:
            held_out = replace(held_out, experts={**held_out.experts, name: expert})
        if name not in held_out.experts:
            raise InputError(
                f"evaluation.shards {held_out.path}: no targets of {name}, which is trained; build them with it"
            )
        found, expected = held_out.experts[name].spec.fingerprint, expert.spec.fingerprint
        if found != expected:
            raise InputError(
                f"evaluation.shards {held_out.path}: targets of {name} are {found}, those of the training {expected}; "
                "build both sets with the same expert and reduction"
            )
    return held_out
