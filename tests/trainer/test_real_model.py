"""The study on real weights: what needs none of the sounds and weights that it fetches."""

import io
import shutil
import struct
from collections import Counter
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.real_model import analysis, arms, data, report, report_analyses, sources, study
from benchmarks.real_model.arms import ARMS, CLIPS, Run, config_of
from benchmarks.real_model.asked import Asked
from benchmarks.real_model.clips import (
    LOUDER_DB,
    QUESTIONS,
    TASKS,
    alignment_row,
    gains,
    question_rows,
    training_row,
    write_clips,
    write_pairs,
)
from benchmarks.real_model.data import read_rows
from benchmarks.real_model.sources import RATE, Sample, Sources
from benchmarks.real_model.speech import say
from benchmarks.real_model.student import encoder_weights, read_ctranslate2, sizes

DTYPES: tuple[arms.Dtype, ...] = ("bfloat16", "float32")


def ctranslate2(variables: dict[str, np.ndarray]) -> bytes:
    """A model.bin as CTranslate2 writes it, in float16."""
    sink = io.BytesIO()

    def text(value: str) -> None:
        sink.write(struct.pack("<H", len(value) + 1) + value.encode() + b"\0")

    sink.write(struct.pack("<I", 6))
    text("WhisperSpec")
    sink.write(struct.pack("<II", 3, len(variables)))
    for name, value in variables.items():
        text(name)
        sink.write(struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
        data = value.astype(np.float16).tobytes()
        sink.write(struct.pack("<BI", 4, len(data)) + data)
    return sink.getvalue()


def test_whispers_encoder_is_read_as_it_was_written():
    """Against transformers' encoder of the same weights, laid out as CTranslate2 has them."""
    torch.manual_seed(0)
    expected: dict[str, Any] = {
        "num_mel_bins": 8, "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 1, "encoder_ffn_dim": 256,
        "max_source_positions": 20,
    }  # fmt: skip
    encoder = WhisperEncoder(WhisperConfig(**expected)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(parameter.normal_(0.0, 0.2).half().float())
    weights = encoder.state_dict()
    read = encoder_weights(read_ctranslate2(ctranslate2(as_ctranslate2(weights, 2))))
    assert sizes(read) == expected
    again = WhisperEncoder(WhisperConfig(**sizes(read))).eval()
    again.load_state_dict(read)
    mels = torch.randn(1, 8, 40)
    with torch.no_grad():
        assert torch.equal(again(mels).last_hidden_state, encoder(mels).last_hidden_state)


def as_ctranslate2(weights: dict[str, Tensor], layers: int) -> dict[str, np.ndarray]:
    found = {"encoder/position_encodings/encodings": weights["embed_positions.weight"]}

    def linear(to: str, name: str, kinds: tuple[str, str] = ("weight", "bias")) -> None:
        for kind, part in zip(kinds, ("weight", "bias"), strict=True):
            found[f"{to}/{kind}"] = weights[f"{name}.{part}"]

    norm = ("gamma", "beta")
    linear("encoder/conv1", "conv1")
    linear("encoder/conv2", "conv2")
    linear("encoder/layer_norm", "layer_norm", norm)
    for i in range(layers):
        to, name = f"encoder/layer_{i}", f"layers.{i}"
        q, k, v = (weights[f"{name}.self_attn.{p}_proj.weight"] for p in "qkv")
        q_bias, v_bias = (weights[f"{name}.self_attn.{p}_proj.bias"] for p in "qv")
        found[f"{to}/self_attention/linear_0/weight"] = torch.cat([q, k, v])
        found[f"{to}/self_attention/linear_0/bias"] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        linear(f"{to}/self_attention/linear_1", f"{name}.self_attn.out_proj")
        linear(f"{to}/self_attention/layer_norm", f"{name}.self_attn_layer_norm", norm)
        linear(f"{to}/ffn/linear_0", f"{name}.fc1")
        linear(f"{to}/ffn/linear_1", f"{name}.fc2")
        linear(f"{to}/ffn/layer_norm", f"{name}.final_layer_norm", norm)
    return {key: value.numpy() for key, value in found.items()}


class Tones(Sources):
    """Sounds that the machine makes itself, in place of those that are fetched."""

    def __init__(self) -> None:
        short_T = np.ones(RATE // 4, np.float32)
        self.events = {
            split: {event: [Sample(f"{event}-{split}", short_T)] for event in sources.EVENTS}
            for split in sources.SPLITS
        }
        self.digits = {
            split: {f"{split}-{n}": [("one", Sample("one", short_T))] for n in range(2)} for split in sources.SPLITS
        }

    def note(self, program: int, key: int, seconds: float) -> np.ndarray:
        return tone(440.0 * 2.0 ** ((key - 69) / 12), seconds)

    def speech(self, text: str, voice: str, words_a_minute: int, pitch: int) -> np.ndarray:
        return tone(100.0 + 2.0 * pitch, 60.0 * len(text.split()) / words_a_minute)


def tone(hz: float, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("corpus")
    write_clips(Tones(), folder, "test", dict.fromkeys(QUESTIONS, 6), seed=0)
    return folder


def heard(corpus, kind: str):
    rows = [row for row in read_rows(corpus / "test.jsonl") if row["kind"] == kind]
    return [(row, soundfile.read(corpus / row["audio_filepath"])[0]) for row in rows]


def test_notes_are_those_that_the_truth_names(corpus):
    """Measured: the pitch of the clip's first and last tone."""
    for row, sound_T in heard(corpus, "music"):
        first, last = (pitch(sound_T[start : start + 4096]) for start in (round(0.12 * RATE), len(sound_T) - 9000))
        name = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")[first % 12]
        assert name == row["truth"]["note"]
        assert (last > first) == (row["truth"]["melody"] == "up")


def test_loudness_is_that_of_the_truth(corpus):
    for kind in QUESTIONS:
        for row, sound_T in heard(corpus, kind):
            loud = np.flatnonzero(np.abs(sound_T) > 0.02)
            half = len(sound_T[loud[0] : loud[-1]]) // 4
            begin, end = (np.abs(part).max() for part in (sound_T[loud[0] :][:half], sound_T[: loud[-1]][-half:]))
            assert (end > begin) == (row["truth"]["loudness"] == "louder"), row["id"]
    assert np.isclose(20 * np.log10(gains({"loudness": "louder"}, 4)[0]), -LOUDER_DB)


def pitch(part_T: np.ndarray) -> int:
    """The nearest key."""
    spectrum_F = np.abs(np.fft.rfft(part_T * np.hanning(len(part_T)), 1 << 16))
    return round(69 + 12 * np.log2(spectrum_F.argmax() * RATE / (1 << 16) / 440.0))


def test_a_clip_depends_on_seed_split_and_number_alone(corpus, tmp_path):
    write_clips(Tones(), tmp_path, "test", {"event": 2, "music": 3}, seed=0)
    for row in read_rows(tmp_path / "test.jsonl"):
        assert (tmp_path / row["audio_filepath"]).read_bytes() == (corpus / row["audio_filepath"]).read_bytes()


def test_pairs_differ_in_what_is_asked_alone(tmp_path):
    """Two melodies from one key, up and down; levels and tempos as they were."""
    write_pairs(Tones(), tmp_path, tmp_path / "pairs.jsonl", {"music": {"melody": 4, "loudness": 1}}, seed=0)
    rows = {row["id"]: row for row in read_rows(tmp_path / "pairs.jsonl")}
    assert len(rows) == 10
    for row in rows.values():
        other = rows[row["donor"]]
        assert other["donor"] == row["id"] != other["id"]
        assert {row["response"], other["response"]} == set(QUESTIONS["music"][row["task"]].answers)
        assert all(row[key] == other[key] for key in ("kind", "source", "task", "prompt", "duration"))
        if row["task"] == "melody":
            one_T, other_T = (soundfile.read(tmp_path / r["audio_filepath"])[0] for r in (row, other))
            start, end = round(0.12 * RATE), len(one_T) - 9000
            assert pitch(one_T[start : start + 4096]) == pitch(other_T[start : start + 4096])
            assert pitch(one_T[end : end + 4096]) != pitch(other_T[end : end + 4096])


def test_what_is_said_depends_on_nothing_said_before():
    """eSpeak NG's voices waver, and go on from where they stopped; PyPI's package brings it, so no sound is fetched."""
    pytest.importorskip("espeakng_loader")
    asked = ("apple bridge", "en-us+m4", 200, 50)
    (first_T, rate), _, (again_T, _) = say(*asked), say("other words", "en-us+f2", 220, 70), say(*asked)
    assert np.array_equal(first_T, again_T)
    assert 0.5 * rate < len(first_T) < 2 * rate
    with pytest.raises(SystemExit, match="no voice en-us"):
        say("apple", "en-us-of-nowhere", 200, 50)


def test_rows_ask_all_that_is_known_and_never_tell_it(corpus):
    rows, rng = read_rows(corpus / "test.jsonl"), np.random.default_rng(0)
    for row in rows:
        trained = training_row(row, rng)
        asked = [*trained["turns"], [trained["prompt"], trained["response"]]]
        assert sorted(answer for _, answer in asked) == sorted(row["truth"].values())
        assert "truth" not in trained
        assert "said" not in alignment_row(row, rng)
    questions = list(question_rows(rows))
    assert {row["task"] for row in questions} == set(TASKS)
    assert len({row["id"] for row in questions}) == len(questions) == sum(len(row["truth"]) for row in rows)


def test_no_source_of_the_test_is_in_training():
    for of_family in sources.FAMILIES.values():
        assert not set(of_family["train"]) & set(of_family["test"])
    assert not set(sources.VOICES["train"]) & set(sources.VOICES["test"])
    assert not set(sources.SPEAKERS["train"]) & set(sources.SPEAKERS["test"])
    programs = [p for of in sources.FAMILIES.values() for split in of.values() for p in split]
    assert sorted(programs) == sorted(set(programs)) == sorted(sources.KEYS)


def test_arms_differ_in_what_is_distilled_alone(tmp_path):
    configs = {arm: config_of(Run(arm, 1e-3, 0, "final"), tmp_path, tmp_path / "run") for arm in ARMS}
    steps = CLIPS["train"]
    assert sum(steps.values()) == 250 * configs["A"].data.batch_size  # one pass
    assert [c.thinking.count for c in configs.values()] == [0, 25, 25, 0, 25]
    assert [sum(stage.distill for stage in c.stages) > 0 for c in configs.values()] == [False, False, True, True, True]
    assert [c.thinking.states for c in configs.values()] == ["think", "think", "think", "audio", "both"]
    for config in configs.values():
        assert (config.data, config.lora, config.optim) == (configs["A"].data, configs["A"].lora, configs["A"].optim)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_variants_differ_from_their_arm_in_a_setting_of_the_trainer(tmp_path, attention):
    for name, settings in arms.VARIANTS.items():
        arm, variant = (
            config_of(Run(n, 1e-3, 0, "variant", attention), tmp_path, tmp_path).to_dict() for n in (name[0], name)
        )
        changed = {section: {k: v for k, v in variant[section].items() if v != arm[section][k]} for section in settings}
        assert {**variant, **{section: arm[section] for section in settings}} == arm
        assert changed == settings or (attention == "sdpa" and changed["thinking"] == settings["thinking"])


def test_a_study_in_float32_multiplies_in_float32(tmp_path):
    """Of every phase, and in the name of no run: a result in another dtype is not trained again."""
    for phase in ("final", "listening", "variant"):
        runs = [study.runs_of(phase, ["C", "E"], [0, 1], "sdpa", dtype) for dtype in DTYPES]
        assert [run.name for run in runs[0]] == [run.name for run in runs[1]]
        for run in runs[1]:
            config = config_of(run, tmp_path, tmp_path)
            assert (config.student.dtype, config.run.precision) == ("float32", "no")


def test_the_report_names_runs_of_another_dtype():
    """Results of before there was a choice name none, and are of bfloat16."""
    runs = {"A": [{"run": {"seed": 0}}], "C": [{"run": {"seed": s, "dtype": d}} for s, d in enumerate(DTYPES)]}
    assert report.other_dtypes(runs) == ["All in bfloat16, but C, seed 1: float32.", ""]
    assert report.other_dtypes({"A": runs["A"]}) == []


def test_probes_of_students_that_have_no_block_beside_a_run_that_has():
    def score(subject: int, position: str, layer: int, r2: float, difference: list[float] | None) -> dict[str, Any]:
        at = {"subject": subject, "target": "f0", "position": position, "layer": layer}
        return at | {"score": [r2, r2 - 0.1, r2 + 0.1], "difference": difference}

    scores = [
        *(score(0, "audio", layer, 0.5, None) for layer in (0, 30)),
        *(score(1, "audio", layer, 0.7, [0.2, 0.1, 0.3]) for layer in (0, 30)),
        *(score(1, "think", layer, 0.9, None) for layer in (0, 30)),
    ]
    subjects = ["student", "C-final-lr0.001-seed1-steps1000"]
    said = report_analyses.probes({"subjects": subjects, "scores": scores})
    assert "| f0 | audio | 0.50 0.50 | 0.70 0.70 | 0.20 (0.10 to 0.30) |" in said
    assert "| f0 | think |  | 0.90 0.90 |  |" in said


def test_a_run_leaves_its_result_and_is_not_done_again(tmp_path, student_dir, monkeypatch):
    """Four steps of a variant of E by coat's own commands, with two experts that need no weights; and its analyses."""
    for module in (arms, data):
        monkeypatch.setattr(module, "EXPERTS", ("mel", "pitch"))
    monkeypatch.setattr(arms, "STEPS", {"variant": 4})
    corpus, run = tmp_path / "corpus", Run("E-question", 1e-3, 0, "variant")
    for split, clips in {"train": 2, "test": 1, "validation": 1}.items():
        write_clips(Tones(), corpus, split, dict.fromkeys(QUESTIONS, clips), seed=0)
    data.make_rows(tmp_path, ("train", "test", "validation"))
    write_pairs(Tones(), corpus, data.rows_file(tmp_path, "pairs"), {"music": {"tempo": 2}}, seed=0)
    data.make_shards(tmp_path, ["train", "test"])
    shutil.copytree(student_dir, tmp_path / "aligned")
    results = tmp_path / "results"
    study.perform(run, tmp_path, results)
    found = study.read(run, results)
    assert found is not None
    asked = Counter(row["task"] for row in read_rows(data.rows_file(tmp_path, "validation")))
    assert {task: len(hits) for task, hits in found["hits"]["validation"].items()} == asked
    assert (found["run"]["steps"], found["run"]["arm"]) == (4, "E-question")
    assert found["train_seconds"] > 0
    assert found["log"][-1]["step"] == 4
    assert {"distill/mel", "distill/mel@audio"} <= set(found["log"][-1])  # E: at both places
    folder = tmp_path / "runs" / run.name
    said = "\n".join(
        report_analyses.interventions("E", analysis.intervene(folder, tmp_path), "all")
        + report_analyses.interventions("E", analysis.pairs(folder, tmp_path), "pairs")
        + report_analyses.fidelity("E", analysis.fidelity(folder, folder, tmp_path))
    )
    assert all(f"| {name} |" in said for name in report_analyses.NAMES.values()), said
    assert said.count("0.000 (0.000 to 0.000)") >= 2, said  # over itself there is no difference
    alone = report_analyses.fidelity("E", analysis.fidelity(folder, None, tmp_path))
    assert {line.count("|") for line in alone if line.startswith("|")} == {5}, alone  # four columns
    shutil.rmtree(tmp_path / "runs")
    study.perform(run, tmp_path, results)
    assert not (tmp_path / "runs").exists()


def test_intervals_draw_sources_not_clips():
    """Two instruments, one always right and one never: of their draws a quarter has the one alone."""
    rows = [{"task": task, "kind": "music", "source": f"s{i % 2}"} for task in TASKS for i in range(40)]
    result = {"hits": {"test": dict.fromkeys(TASKS, "10" * 20)}}
    drawn = Asked(rows, draws=4000).drawn([result, result], TASKS)
    assert np.allclose([(drawn == share).mean() for share in (0.0, 0.5, 1.0)], [0.25, 0.5, 0.25], atol=0.04)
