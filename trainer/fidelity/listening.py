"""A model over shards, with a meter that takes records of what its heads say."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.samples import Sample
from coat.trainer.data.usable import usable_samples, within_budget
from coat.trainer.fidelity.meter import Clip, FidelityMeter
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import same_targets
from coat.trainer.ranks import gather_from_ranks, raise_on_all_ranks


@dataclass
class Counts:
    """Of one pass over the shards, of all ranks."""

    clips: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # by reason


def listen(
    model: CoatModel,
    config: TrainConfig,
    indices: Mapping[str, ShardIndex],
    meter: FidelityMeter,
    *,
    samples: int | None = None,
    batch_size: int | None = None,
    by: Sequence[str] = (),
    accelerator: Accelerator | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> Counts:
    """Of each set (by name) the first `samples`. Ranks share them; afterwards all have the records of all.

    `by`: keys of the manifest, the first that a row has names its corpus.
    """
    counts = Counts()
    rank, ranks = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)

    def skip(why: Exception) -> None:
        counts.skipped[getattr(why, "reason", type(why).__name__)] += 1
        advance(1)

    with raise_on_all_ranks(accelerator) if accelerator else nullcontext(), torch.no_grad():
        for number, (name, index) in enumerate(indices.items()):
            collator = Collator(model.student, model.block, index, meter.experts)
            usable = usable_samples(collator, config, samples, rank, ranks, skip)
            size, budget = batch_size or config.data.batch_size, config.data.batch_tokens
            for items in within_budget(usable, size, budget, lambda item: len(item.encoded.ids)):
                batch = collator.collate([item.encoded for item in items])
                set_name = name if len(indices) > 1 else ""
                clips = [Clip.of(i.sample, (number, i.number), group_of(i.sample, by, set_name)) for i in items]
                with meter.watch(batch, clips):
                    model(batch.to(model.student.model.device))
                counts.clips += len(items)
                advance(len(items))
    if accelerator is not None and ranks > 1:
        meter.gather(accelerator)
        found = gather_from_ranks(accelerator, [counts])
        counts = Counts(sum(c.clips for c in found), sum((c.skipped for c in found), Counter()))
    return counts


def group_of(sample: Sample, keys: Sequence[str], otherwise: str = "") -> str:
    values = (sample.extra.get(key) for key in keys)
    return next((str(value) for value in values if isinstance(value, str | int) and str(value)), otherwise)


def index_with(path: str, experts: Mapping[str, ExpertInfo], run: str) -> ShardIndex:
    """Of shards, with all experts of a run: where the shards lack one, no sample has targets of it.

    InputError where they have none of them, or other targets than the run was trained on.
    """
    index = ShardIndex.read(path)
    found = {name: index.experts[name] for name in experts if name in index.experts}
    if not found:
        raise InputError(
            f"{path}: no targets of what {run} distils ({', '.join(experts)}); it has "
            f"{', '.join(index.experts) or 'none'}; build shards with `--experts {','.join(experts)}`"
        )
    for name, info in found.items():
        if not same_targets(experts[name], info):
            raise InputError(
                f"{path}: targets of {name} are {info.spec.fingerprint}, those of {run} "
                f"{experts[name].spec.fingerprint}; build both sets with the same expert and reduction"
            )
    return replace(index, experts={**index.experts, **{n: e for n, e in experts.items() if n not in found}})
