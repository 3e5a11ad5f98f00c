"""From the corpus to tensors: experts, shards and mel features are made once, in a cache folder, and kept.

    CACHE/corpus/ targets/ shards/       as the quickstart makes them; experts hear the training clips alone
    CACHE/clips-<split>.safetensors      features [clips, 80, 100] (float32) and, of `train`, each expert's frames

N frames of an expert, D its dim.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.scale_model.corpus import CLIP_S, QUESTIONS, Truth, make_corpus
from coat.cli.quickstart import EXPERTS
from coat.manifests import ShardIndex, decode
from coat.manifests.manifest import Manifest, write_rows
from coat.trainer.batches import Batch, Collator, Item
from coat.trainer.config import DataConfig
from coat.trainer.data import Sample, iterate_shards
from coat.trainer.students.base import Student

CACHE = Path(os.environ.get("COAT_SCALE_CACHE", "runs/scale_model"))
CLIPS: Mapping[str, int] = {"train": 3000, "validation": 400, "test": 1000}
TARGET_HZ = 25.0  # of targets whose expert has a higher rate: enough for vibrato, and two frames a position
PLAIN = DataConfig(shards="-", choices="ignore")
Pair = tuple[int, str]  # clip and question


@dataclass(frozen=True)
class Clips:
    """One split. Tensors are by clip; `targets` are of the training clips alone."""

    ids: tuple[str, ...]
    truths: tuple[Truth, ...]
    features: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]  # by expert, [clips, N, D], as stored

    def __len__(self) -> int:
        return len(self.ids)


def prepare(cache: Path = CACHE, clips: Mapping[str, int] = CLIPS, student: Path | None = None) -> None:
    """Make what is missing: some minutes with 4,400 clips on one core. `student`: whose features are taken."""
    from benchmarks.scale_model.student import make_student
    from coat.pipeline.cluster import Where
    from coat.pipeline.extraction import extract
    from coat.pipeline.shards import build_shards
    from coat.pipeline.shard_reductions import Wishes
    from coat.trainer.students import load_student

    done = cache / "clips.json"
    if done.exists():
        if json.loads(done.read_text()) != dict(clips):
            raise ValueError(f"{cache}: holds other numbers of clips than {dict(clips)}; remove it")
        return
    corpus = cache / "corpus"
    if not (corpus / "manifest.jsonl").exists():
        make_corpus(corpus, clips)
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    train = corpus / "train.jsonl"
    write_rows(str(train), [row for row in rows if row["split"] == "train"])
    extract(str(train), str(cache / "targets"), EXPERTS, where=Where(workers=0))
    wishes = Wishes.parse(rate=f"{TARGET_HZ}")
    build_shards(str(train), str(cache / "targets"), EXPERTS, str(cache / "shards"), overwrite=True, wishes=wishes)
    folder = cache / "students" / "plain-0"
    model = load_student(str(student or (folder if folder.exists() else make_student(folder, 0))))
    targets = {s.id: s.targets for s in iterate_shards(str(cache / "shards"))}
    for split in clips:
        part = Manifest.read(str(corpus / "manifest.jsonl"))
        heard = [u for u in part if u.extra["split"] == split]
        save_split(cache, split, model, heard, targets)
    done.write_text(json.dumps(dict(clips)))


def save_split(cache: Path, split: str, student: Student, rows: Sequence[Any], targets: Mapping[str, Any]) -> None:
    tensors: dict[str, list[Tensor]] = {}
    for u in rows:
        clip = decode(u.audio, u.offset, u.duration)
        for name, tensor in student.prefix(clip.at(student.sample_rate), "?", u.id).features.items():
            tensors.setdefault(f"features.{name}", []).append(tensor[0])
        for name, frames_ND in targets.get(u.id, {}).items():
            tensors.setdefault(f"targets.{name}", []).append(torch.from_numpy(np.array(frames_ND, np.float32)))
    meta = {"ids": json.dumps([u.id for u in rows]), "truths": json.dumps([dict(u.extra["truth"]) for u in rows])}
    whole = {name: torch.stack(parts) for name, parts in tensors.items()}
    save_file(whole, cache / f"clips-{split}.safetensors", metadata=meta)


def load_split(cache: Path, split: str) -> Clips:
    from safetensors import safe_open

    file = cache / f"clips-{split}.safetensors"
    with safe_open(file, "pt") as opened:
        meta = opened.metadata()
    parts: dict[str, dict[str, Tensor]] = {"features": {}, "targets": {}}
    for name, tensor in load_file(file).items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    return Clips(tuple(json.loads(meta["ids"])), tuple(json.loads(meta["truths"])), parts["features"], parts["targets"])


class Asker:
    """Items of (clip, question), made as `Collator.item` makes them, without decoding anything again.

    All clips are 2 s long, so that the ids of a prompt are the same for each; a test holds items equal.
    """

    def __init__(self, collator: Collator, clips: Clips) -> None:
        self.collator, self.clips = collator, clips
        silence = np.zeros(round(CLIP_S * collator.student.sample_rate), np.float32)
        self.asked: dict[tuple[str, str], Item] = {}
        for name, question in QUESTIONS.items():
            for answer in question.answers:
                sample = Sample(
                    id="-", key="-", samples_S=silence, sample_rate=collator.student.sample_rate, text=None,
                    prompt=question.prompt, response=answer,
                )  # fmt: skip
                self.asked[name, answer] = collator.item(sample, PLAIN)

    def item(self, pair: Pair) -> Item:
        clip, question = pair
        return replace(
            self.asked[question, self.clips.truths[clip][question]],
            id=f"{self.clips.ids[clip]}/{question}",
            features={name: t[clip : clip + 1] for name, t in self.clips.features.items()},
            targets={n: self.clips.targets[n][clip].numpy() for n in self.collator.experts if n in self.clips.targets},
        )

    def batch(self, pairs: Sequence[Pair]) -> Batch:
        return self.collator.batch([self.item(pair) for pair in pairs])


class Drawn:
    """In place of the trainer's `Loader`: batches of all (clip, question), each once an epoch, permuted by the seed.

    Which these are depends on seed, questions and batch size alone: the same for all arms.
    """

    def __init__(self, asker: Asker, questions: Sequence[str], batch_size: int, seed: int) -> None:
        self.asker, self.batch_size, self.seed = asker, batch_size, seed
        self.pairs = [(clip, question) for clip in range(len(asker.clips)) for question in questions]
        self.given, self.skipped = 0, {}

    def __iter__(self) -> Iterator[Batch]:
        per_epoch = len(self.pairs) // self.batch_size  # what remains is left out
        while True:
            epoch, number = divmod(self.given, per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs))
            for b in range(number, per_epoch):
                self.given += 1
                yield self.asker.batch([self.pairs[i] for i in order[b * self.batch_size : (b + 1) * self.batch_size]])

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.given = state["given"]


def index_of(cache: Path) -> ShardIndex:
    return ShardIndex.read(str(cache / "shards"))
