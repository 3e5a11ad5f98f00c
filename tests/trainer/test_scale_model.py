"""What benchmarks/scale_model measures with, against independent truth: shared prefixes, answers, states, probes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from benchmarks.scale_model import corpus, measure, probes
from benchmarks.scale_model.arms import SCALES, Run, config_of
from benchmarks.scale_model.data import Asker, Clips, Drawn
from benchmarks.scale_model.student import make_student, with_block
from coat.analysis.layers import gathered, replaced, states_at
from coat.manifests import ShardIndex
from coat.manifests.corpus.sounds import SAMPLE_RATE
from coat.trainer.data.collator import Collator
from coat.trainer.data.samples import Sample
from coat.trainer.generation.generate import Trained
from coat.trainer.model.batch import Batch
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of
from coat.trainer.model.hiding import causal_mask
from coat.trainer.training.step.trainer import Trainer
from coat.trainer.training.step.watchdog import Watchdog
from tests.trainer.helpers import toy_sample, toy_targets, write_shards

CLIPS = 5
QUESTIONS = ("vowel", "note", "count", "word")


@pytest.fixture(scope="module")
def student_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    return with_block(make_student(folder / "plain", 0), folder / "ready")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("scale-shards"), [toy_sample(i, 2.0) for i in range(2)])


class World:
    """An untrained model of one arm, and some clips of the corpus with targets at random."""

    def __init__(self, arm: str, student: Path, shards: Path, out: Path, variant: str = "") -> None:
        index = ShardIndex.read(str(shards))
        config = config_of(Run("scratch", arm, 1e-3, 0, "final", 8, variant), student, shards, out)
        heads = config.heads.model_copy(update={"experts": None})
        self.config = config.model_copy(update={"heads": heads})
        self.model: CoatModel = build_model(self.config, experts_of(self.config, index)).eval()
        with torch.no_grad():  # else all answers are one: states hardly differ at random weights
            self.model.student.model.model.multi_modal_projector.linear.weight.mul_(30)
        self.collator = Collator(self.model.student, self.model.block, index, list(self.model.heads.specs))
        made = [corpus.make_clip(np.random.default_rng([5, i])) for i in range(CLIPS)]
        self.sounds = [decoded(flac) for flac, _ in made]
        self.truths = tuple({**truth, "word": corpus.word_of(f"c{i}")} for i, (_, truth) in enumerate(made))
        targets = [toy_targets(np.random.default_rng(i), 2.0) for i in range(CLIPS)]
        targets[1]["mel"][3, 2] = np.nan
        features = [self.model.student.prefix(sound_S, "?").features for sound_S in self.sounds]
        self.targets = targets
        self.clips = Clips(
            tuple(f"c{i}" for i in range(CLIPS)),
            self.truths,
            {name: torch.cat([f[name] for f in features]) for name in features[0]},
            {name: torch.from_numpy(np.stack([t[name] for t in targets]).astype(np.float32)) for name in targets[0]},
        )
        self.asker = Asker(self.collator, self.clips, QUESTIONS)

    def prompt(self, clip: int, question: str) -> str:
        return corpus.ASKABLE[question].asked(self.truths[clip][question])

    def sample(self, clip: int, question: str) -> Sample:
        return Sample(
            id=f"c{clip}", key=f"c{clip}", samples_S=self.sounds[clip], sample_rate=SAMPLE_RATE, text=None,
            prompt=self.prompt(clip, question), response=self.truths[clip][question], targets=self.targets[clip],
        )  # fmt: skip


def decoded(flac: bytes) -> np.ndarray:
    import io

    import soundfile

    return soundfile.read(io.BytesIO(flac), dtype="float32")[0]


@pytest.fixture(params=["A", "C", "D", "E"])
def world(request: pytest.FixtureRequest, student_path: Path, shards: Path, tmp_path: Path) -> World:
    return World(request.param, student_path, shards, tmp_path / "run")


@pytest.fixture
def coat_world(student_path: Path, shards: Path, tmp_path: Path) -> World:
    return World("C", student_path, shards, tmp_path / "run")


def gradients(model: CoatModel, losses: dict[str, torch.Tensor], weights: dict[str, float]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    sum(weights[name] * loss for name, loss in losses.items()).backward()  # type: ignore[union-attr]
    return {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}


def test_questions_that_share_a_prefix_are_as_if_asked_alone(world: World) -> None:
    """Losses and gradients are those of coat's collator with a sequence for each question."""
    model = world.model
    in_one_batch = world.asker.batch(range(CLIPS))
    items = [world.collator.encode(world.sample(c, q), world.config.data) for c in range(CLIPS) for q in QUESTIONS]
    alone = world.collator.collate(items)
    ours, theirs = model(in_one_batch), model(alone)
    assert in_one_batch.counts()["ce"] == alone.counts()["ce"] == 2 * CLIPS * len(QUESTIONS)
    # Alone, each question has the targets of its clip anew.
    share = {name: 1.0 if name == "ce" else 1 / len(QUESTIONS) for name in ours}
    assert {n: float(v.detach()) for n, v in ours.items()} == pytest.approx(
        {n: share[n] * float(v.detach()) for n, v in theirs.items()}, rel=1e-4
    )
    mine = gradients(model, model(in_one_batch), dict.fromkeys(ours, 1.0))
    other = gradients(model, model(alone), share)
    assert mine.keys() == other.keys()
    for name, gradient in mine.items():
        assert (gradient - other[name]).norm() <= 1e-3 * other[name].norm() + 1e-6, name


def test_clips_that_are_heard_through_the_block_alone_are_as_the_trainer_has_them(coat_world: World) -> None:
    model, collator, deaf_B = coat_world.model.eval(), coat_world.collator, torch.arange(CLIPS) % 2 == 0
    block = collator.block
    object.__setattr__(block, "config", block.config.model_copy(update={"hide_audio": 0.5}))
    asked = [(c, q) for c in range(CLIPS) for q in QUESTIONS]
    alone = collator.collate([collator.encode(coat_world.sample(c, q), coat_world.config.data) for c, q in asked])
    assert alone.hidden
    deaf_R = deaf_B[[c for c, _ in asked]]
    mask_B1TT = alone.hidden.of(deaf_R).within(causal_mask(alone.labels_BT.shape[1], deaf_R.device))
    shared = coat_world.asker.batch(range(CLIPS), deaf_B)

    def cross_entropy(batch: Batch, mask_B1TT: torch.Tensor | None = None) -> float:
        with torch.no_grad():
            states_BTD, _ = model.states(batch.inputs, batch.indices, mask_B1TT)
            return float(model.cross_entropy(states_BTD, batch.labels_BT, batch.before_R))

    assert cross_entropy(shared) == pytest.approx(cross_entropy(alone, mask_B1TT), rel=1e-4)
    assert cross_entropy(shared) != pytest.approx(cross_entropy(alone), rel=1e-4)


def test_answers_are_those_that_generation_gives(world: World) -> None:
    trained = Trained(world.model.student, world.model.block, world.config)
    said = measure.answers(world.model, world.asker, world.asker.batch(range(CLIPS))).said_BQ
    tokenizer = world.model.student.tokenizer
    for n, question in enumerate(QUESTIONS):
        asked = [((s, SAMPLE_RATE), world.prompt(c, question), ()) for c, s in enumerate(world.sounds)]
        first = [tokenizer.decode([int(token)], skip_special_tokens=True).strip() for token in said[:, n]]
        assert trained.ask_many(asked, max_new_tokens=1) == first


def test_states_of_another_clip_are_what_it_would_have_been(coat_world: World) -> None:
    """All of the prefix from another clip: its answers. Their own states: no change at all. The block alone: some."""
    model, asker = coat_world.model, coat_world.asker
    batch = asker.batch(range(CLIPS))
    everywhere_BT = torch.arange(batch.inputs["input_ids"].shape[1]).expand(CLIPS, -1)
    kept = states_at(model, batch.inputs, everywhere_BT, range(3))
    clean_BTD = model.states(batch.inputs)[0].detach()
    donor = asker.batch([CLIPS - 1, *range(CLIPS - 1)])
    donor_BTD = model.states({**batch.inputs, "input_features": donor.inputs["input_features"]})[0].detach()
    prefix_BK = torch.arange(asker.shared).expand(CLIPS, -1)
    block_BK, audio_BK = measure.block_at(model, batch), measure.audio_at(model, batch)
    assert (block_BK.shape[1], audio_BK.shape[1]) == (27, 25)
    assert prefix_BK.shape[1] > int(block_BK.max())

    def with_states(at_BK: torch.Tensor, rows: list[int]) -> torch.Tensor:
        states = {layer: gathered(states_BTD[rows], at_BK) for layer, states_BTD in kept.items()}
        with replaced(model.student, at_BK, states):
            return model.states(batch.inputs)[0].detach()

    rolled = [CLIPS - 1, *range(CLIPS - 1)]
    behind = int(prefix_BK.max()) + 1
    assert torch.equal(with_states(block_BK, list(range(CLIPS))), clean_BTD)
    assert torch.allclose(with_states(prefix_BK, rolled)[:, behind:], donor_BTD[:, behind:], atol=1e-5)
    moved = with_states(block_BK, rolled)
    assert torch.equal(moved[:, : int(block_BK.min())], clean_BTD[:, : int(block_BK.min())])
    assert (moved[:, behind:] - clean_BTD[:, behind:]).abs().max() > 1e-4
    found = measure.causal(model, asker, CLIPS)
    assert set(found) == {"untouched", "block: other clip", "block: batch mean", "block: zero", "audio: other clip"}
    right = measure.accuracy(model, asker)
    assert found["untouched"]["accuracy"] == {q: right[q].count("1") / CLIPS for q in QUESTIONS}


def test_heard_through_the_block_alone(coat_world: World) -> None:
    """Then the block of another clip is all that there is of it."""
    model = coat_world.model
    asker = Asker(coat_world.collator, coat_world.clips, QUESTIONS, through_block=True)
    batch, donor = asker.batch(range(CLIPS)), asker.batch([CLIPS - 1, *range(CLIPS - 1)])
    clean_BTD = model.states(batch.inputs)[0].detach()
    donor_BTD = model.states({**batch.inputs, "input_features": donor.inputs["input_features"]})[0].detach()
    block_BK = measure.block_at(model, batch)
    kept = {layer: s.roll(1, 0) for layer, s in states_at(model, batch.inputs, block_BK, range(3)).items()}
    with replaced(model.student, block_BK, kept):
        moved_BTD = model.states(batch.inputs)[0].detach()
    behind = int(block_BK.max()) + 1
    assert (clean_BTD - donor_BTD)[:, behind:].abs().max() > 1e-4
    assert torch.allclose(moved_BTD[:, behind:], donor_BTD[:, behind:], atol=1e-5)


def test_every_clip_comes_once_an_epoch_and_a_run_goes_on_where_it_was(coat_world: World) -> None:
    drawn = Drawn(coat_world.asker, 2, seed=3)
    batches = iter(drawn)
    ids = [next(batches).ids for _ in range(6)]  # 5 clips: two batches an epoch, one clip left out
    assert all(len({*ids[e], *ids[e + 1]}) == 4 for e in (0, 2, 4))
    again = Drawn(coat_world.asker, 2, seed=3)
    again.load_state_dict({"given": 3})
    assert [b.ids for b, _ in zip(again, range(3), strict=False)] == ids[3:]


def test_scales_change_nothing_where_nothing_is_distilled(student_path: Path, shards: Path, tmp_path: Path) -> None:
    """Of arms A and B the weights behind a step are equal bit for bit under all scales; of C they are others."""

    def stepped(arm: str, variant: str) -> dict[str, torch.Tensor]:
        world = World(arm, student_path, shards, tmp_path, variant)
        experts = experts_of(world.config, ShardIndex.read(str(shards)))
        watchdog = Watchdog(world.config.run, math.inf, lambda _: None, lambda: "")
        trainer = Trainer(world.config, world.model, experts, Accelerator(cpu=True), watchdog)
        trainer.step([world.asker.batch(range(CLIPS))])
        return dict(world.model.trainable())

    for arm, variants in (("A", SCALES), ("B", SCALES), ("C", ("scale-prior",))):
        before = stepped(arm, "")
        for variant in variants:
            after = stepped(arm, variant)
            same = [torch.equal(before[name], parameter) for name, parameter in after.items()]
            assert all(same) == (arm != "C"), (arm, variant)


def test_probes_find_what_is_linear_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(n, 8)) for n in (300, 100, 200)]
    line, noise = rng.normal(size=(8, 1)), [rng.normal(size=(len(part), 1)) for part in x]
    assert probes.fitted(x, [part @ line + 0.3 + 0.1 * n for part, n in zip(x, noise, strict=True)]) > 0.98
    assert abs(probes.fitted(x, noise)) < 0.15
    classes = [np.eye(3)[(part @ rng.normal(size=(8, 3))).argmax(1)] for part in x]
    shuffled = [rng.permutation(part) for part in classes]
    weights = rng.normal(size=(8, 3))
    assert probes.fitted(x, [np.eye(3)[(part @ weights).argmax(1)] for part in x]) > 0.85
    assert probes.fitted(x, shuffled) < 0.5


def test_clips_are_what_their_truth_says() -> None:
    """The held note, measured by the period of the sound itself; equal seeds give equal bytes."""
    assert corpus.make_clip(np.random.default_rng(1)) == corpus.make_clip(np.random.default_rng(1))
    found, truths = [], []
    for i in range(12):
        flac, truth = corpus.make_clip(np.random.default_rng([9, i]))
        if truth["event"] in ("noise", "clicks") and truth["mood"] != "trembling":
            held_S = decoded(flac)[int(0.15 * SAMPLE_RATE) : int(1.0 * SAMPLE_RATE)]
            power = np.abs(np.fft.rfft(held_S, 1 << 18)) ** 2
            same = np.fft.irfft(power)[: 1 << 12]  # autocorrelation
            lags = np.arange(SAMPLE_RATE // 260, SAMPLE_RATE // 125)
            found.append(np.log2(SAMPLE_RATE / lags[same[lags].argmax()]))
            truths.append(truth["f0_log2"])
            assert abs(truths[-1] - np.log2(130.81) - corpus.NOTES.index(truth["note"]) / 12) < 0.5 / 12
    assert len(found) >= 3
    assert np.abs(np.array(found) - truths).max() < 0.3 / 12
