"""From the corpus to tensors: experts, shards and mel features are made once, in a cache folder, and kept.

    CACHE/corpus/ targets/ shards/       as the quickstart makes them; experts hear the training clips alone
    CACHE/clips-<split>.safetensors      features [clips, 80, 100] (float32) and, of `train`, each expert's frames

B clips of a batch, T positions of a row, Q questions, K states that heads read, N frames of an expert, D its dim.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.scale_model.corpus import ASKABLE, CLIP_S, EXPERTS, Truth, make_corpus, word_of
from coat.manifests import ShardIndex, decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.writing import write_rows
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.collator import Collator, EncodedSample, pad_targets
from coat.trainer.data.samples import Sample
from coat.trainer.data.shard_reading import iterate_shards
from coat.trainer.model.batch import IGNORED, Batch, Targets
from coat.trainer.model.hiding import audio_hidden
from coat.trainer.students.base import Student

CACHE = Path(os.environ.get("COAT_SCALE_CACHE", "runs/scale_model"))
CLIPS: Mapping[str, int] = {"train": 3000, "validation": 400, "test": 1000}
TARGET_HZ = 25.0  # of targets whose expert has a higher rate: enough for vibrato, and two frames a position
PLAIN = DataConfig(shards="-", choices="ignore")


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
    from coat.pipeline.cluster.resources import Resources
    from coat.pipeline.extraction.extraction import extract
    from coat.pipeline.reductions.options import ReductionOptions
    from coat.pipeline.shards.build import build_shards
    from coat.trainer.students.registry import load_student

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
    extract(str(train), str(cache / "targets"), EXPERTS, resources=Resources(workers=0))
    options = ReductionOptions.parse(rate=f"{TARGET_HZ}")
    shards = str(cache / "shards")
    build_shards(str(train), str(cache / "targets"), EXPERTS, shards, overwrite=True, reduction_options=options)
    folder = cache / "students" / "plain-0"
    model = load_student(str(student or (folder if folder.exists() else make_student(folder, 0))))
    targets = {s.id: s.targets for s in iterate_shards(str(cache / "shards"))}
    manifest = list(Manifest.read(str(corpus / "manifest.jsonl")))
    for split in clips:
        save_split(cache, split, model, [u for u in manifest if u.extra["split"] == split], targets)
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
    ids = json.loads(meta["ids"])
    truths = tuple({**truth, "word": word_of(i)} for i, truth in zip(ids, json.loads(meta["truths"]), strict=True))
    return Clips(tuple(ids), truths, parts["features"], parts["targets"])


class Asker:
    """Batches of clips that are asked several questions each: all of one clip share one prefix.

    A row is the prefix (chat, audio, block) and then, one after the other, each question with its response. A
    4-D mask hides the questions from each other and positions begin anew behind the prefix, so that each is computed
    as if it were asked alone (a test holds losses and gradients equal to those of `Collator`). The tower, the
    block and the heads are computed once a clip instead of once a question. With `through_block`, what stands behind
    the block does not attend to the audio itself. All clips are 2 s long and all answers one
    token, so that rows are of one form, and nothing is padded.
    """

    def __init__(self, collator: Collator, clips: Clips, questions: Sequence[str], through_block: bool = False) -> None:
        self.clips, self.questions, self.block = clips, tuple(questions), collator.block
        self.targets = {name: padded(clips.targets[name]) for name in collator.experts if name in clips.targets}
        items = {q: [asked(collator, q, answer) for answer in ASKABLE[q].answers] for q in questions}
        firsts = [of_q[0] for of_q in items.values()]
        self.shared = shared = common(firsts)  # length of the prefix
        lengths = [len(i.ids) - shared for i in firsts]  # of a question with its response
        starts = [shared + sum(lengths[:n]) for n in range(len(lengths))]
        self.prefix_T = torch.tensor(firsts[0].ids[:shared])
        # By question, one row an answer: equally long, as all answers are one token.
        self.tails = [torch.tensor([i.ids[shared:] for i in of_q]) for of_q in items.values()]
        self.positions_T = torch.tensor([*range(shared), *(shared + n for length in lengths for n in range(length))])
        self.response_Q = torch.tensor([start + i.response - shared for start, i in zip(starts, firsts, strict=True)])
        total = starts[-1] + lengths[-1]
        self.mask_TT = torch.ones(total, total, dtype=torch.bool).tril()
        for start in starts[1:]:
            self.mask_TT[start:, shared:start] = False
        self.deaf_TT = self.mask_TT.clone()
        if block := self.block.indices(firsts[0].ids):
            hidden = audio_hidden(collator.student.audio_indices(firsts[0].ids), block, self.block.config)
            self.deaf_TT[hidden.start :, list(hidden.columns)] = False
        if through_block:
            self.mask_TT = self.deaf_TT
        self.heard_K = torch.tensor(firsts[0].positions, dtype=torch.long)  # whose states heads read
        self.audio_K = torch.tensor(firsts[0].audio, dtype=torch.long)  # ... and audio heads, where there are some
        assert all(len(i.ids) - i.response == 2 for of_q in items.values() for i in of_q), "one token, and the end"
        self.truth_NQ = torch.tensor([[ASKABLE[q].answers.index(t[q]) for q in questions] for t in clips.truths])

    def batch(self, clips: Sequence[int], deaf_B: Tensor | None = None) -> Batch:
        """`deaf_B`: the clips in which what stands behind the block does not attend to the audio."""
        rows, size = torch.tensor(clips), len(clips)
        tails = [tail[truth_B] for tail, truth_B in zip(self.tails, self.truth_NQ[rows].T, strict=True)]
        ids_BT = torch.cat([self.prefix_T.repeat(size, 1), *tails], dim=1)
        labels_BT = torch.full_like(ids_BT, IGNORED)
        said = torch.cat([self.response_Q, self.response_Q + 1])  # the answer, and the end
        labels_BT[:, said] = ids_BT[:, said]
        mask_B1TT = self.mask_TT.expand(size, 1, -1, -1)
        if deaf_B is not None:
            mask_B1TT = torch.where(deaf_B[:, None, None, None], self.deaf_TT, mask_B1TT)
        inputs = {
            "input_ids": ids_BT,
            "attention_mask": mask_B1TT,
            "position_ids": self.positions_T.expand(size, -1),
        }
        return Batch(
            inputs=inputs | {name: t[rows] for name, t in self.clips.features.items()},
            labels_BT=labels_BT,
            think_BK=self.heard_K.expand(size, -1),
            think_mask_BK=torch.ones(size, len(self.heard_K), dtype=torch.bool),
            seconds_B=torch.full((size,), CLIP_S),
            targets={n: Targets(t.frames_BND[rows], t.mask_BN[rows]) for n, t in self.targets.items()},
            ids=tuple(self.clips.ids[clip] for clip in clips),
            audio_BK=self.audio_K.expand(size, -1) if len(self.audio_K) else None,
            audio_mask_BK=torch.ones(size, len(self.audio_K), dtype=torch.bool) if len(self.audio_K) else None,
        )


def asked(collator: Collator, question: str, answer: str) -> EncodedSample:
    """One question alone, as coat's collator makes it."""
    rate = collator.student.sample_rate
    silence = np.zeros(round(CLIP_S * rate), np.float32)
    texts = {"text": None, "prompt": ASKABLE[question].asked(answer), "response": answer}
    return collator.encode(Sample(id="-", key="-", samples_S=silence, sample_rate=rate, **texts), PLAIN)


def common(items: Sequence[EncodedSample]) -> int:
    """Length of the prefix that all have; of one item, all up to its response."""
    shared = min(i.response for i in items)
    return next((n for n in range(shared) if len({i.ids[n] for i in items}) > 1), shared)


def padded(frames_BND: Tensor) -> Targets:
    """Frames that hold something not finite are masked, as `Collator` masks them."""
    return pad_targets([frames_ND.numpy() for frames_ND in frames_BND], frames_BND.shape[-1])


class Drawn:
    """In place of the trainer's `Loader`: every clip once an epoch, permuted by the seed.

    Which clips a batch has depends on seed and batch size alone: the same for all arms. `hide_audio` is the share of
    them that are heard through the block alone, as `thinking.hide_audio` has it.
    """

    def __init__(self, asker: Asker, batch_size: int, seed: int, hide_audio: float = 0.0) -> None:
        self.asker, self.batch_size, self.seed, self.hide_audio = asker, batch_size, seed, hide_audio
        self.batches_read, self.skipped = 0, {}

    def __iter__(self) -> Iterator[Batch]:
        clips, size = len(self.asker.clips), self.batch_size
        per_epoch = clips // size  # what remains is left out
        while True:
            epoch, number = divmod(self.batches_read, per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(clips).tolist()
            for b in range(number, per_epoch):
                self.batches_read += 1
                yield self.asker.batch(order[b * size : (b + 1) * size], self.deaf(epoch, b))

    def deaf(self, epoch: int, number: int) -> Tensor | None:
        if not self.hide_audio:
            return None
        drawn_B = np.random.default_rng([self.seed, epoch, number]).random(self.batch_size)
        return torch.from_numpy(drawn_B < self.hide_audio)

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.batches_read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.batches_read = state["given"]


def index_of(cache: Path) -> ShardIndex:
    return ShardIndex.read(str(cache / "shards"))
