"""The synthetic corpus against independent measures: a pitch tracker, energy, zero crossings, spectra."""

import hashlib
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.sounds import f0_at
from coat.manifests.corpus.synthesis import FACTORS, TASKS, make_corpus, make_pair
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.corpus.validate import validate_manifest
from coat.manifests.errors import InputError

RATE = 16_000
CLIPS = 280
HOP = 80  # samples of the energy's frames: 5 ms


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.read(make_corpus(str(tmp_path_factory.mktemp("corpus")), seed=3, clips=CLIPS, heldout=0.25))


def of_task(corpus: Manifest, *names: str) -> Iterator[Utterance]:
    found = [u for u in corpus if u.extra["task"] in names]
    assert found
    return iter(found)


def level_db(u: Utterance) -> np.ndarray:
    """RMS in dBFS, a value per 5 ms."""
    samples = decode(u.audio).samples_T
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    return 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)


def test_every_clip_is_as_its_row_says(corpus: Manifest) -> None:
    assert validate_manifest(corpus.path, deep=True) == []
    for u in corpus:
        clip = decode(u.audio)
        assert (clip.rate, clip.seconds) == (RATE, u.duration)
        assert 2.0 - 1e-4 <= clip.seconds <= 3.0
        assert 10 ** (-12.5 / 20) < np.abs(clip.samples_T).max() < 0.75
        assert (u.prompt, u.choices) == (TASKS[u.extra["task"]].question, TASKS[u.extra["task"]].answers)


def test_answers_are_balanced(corpus: Manifest) -> None:
    counts = Counter((u.extra["task"], u.response) for u in corpus)
    for name, task in TASKS.items():
        shares = [counts[name, answer] for answer in task.answers]
        assert max(shares) - min(shares) <= 2, (name, shares)


def test_parts_share_nothing(corpus: Manifest) -> None:
    folder = Path(corpus.path).parent
    train, heldout = (Manifest.read(str(folder / f"{p}.jsonl")) for p in ("train", "heldout"))
    assert [u.to_row() for u in (*train, *heldout)] == [u.to_row() for u in corpus]
    assert (len(train), len(heldout)) == (CLIPS * 3 // 4, CLIPS // 4)
    pitches = [{hz for u in part for _, hz in u.extra.get("f0", ())} for part in (train, heldout)]
    assert pitches[0].isdisjoint(pitches[1])
    digests = [{decode(u.audio).digest for u in part} for part in (train, heldout)]
    assert digests[0].isdisjoint(digests[1])


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    def digest(folder: str, seed: int) -> str:
        make_corpus(str(tmp_path / folder), seed=seed, clips=28)
        whole = hashlib.sha256()
        for path in sorted((tmp_path / folder).rglob("*.*")):
            whole.update(path.name.encode() + path.read_bytes())
        return whole.hexdigest()

    assert digest("a", 1) == digest("b", 1) != digest("c", 2)


@pytest.mark.parametrize("arguments", [{"clips": 3}, {"seconds": 3.5}, {"seconds": 1.0}, {"heldout": 1.0}])
def test_corpora_that_cannot_be(tmp_path: Path, arguments: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected at least"):
        make_corpus(str(tmp_path), **arguments)  # pyright: ignore[reportArgumentType]


def test_a_pitch_tracker_finds_the_known_f0(corpus: Manifest) -> None:
    swift_f0 = pytest.importorskip("swift_f0")
    tracker = swift_f0.SwiftF0(threads=1)
    for u in of_task(corpus, "glide", "melody", "vowel", "loudness"):
        if "f0" not in u.extra:
            continue
        found = tracker.detect(decode(u.audio).samples_T, RATE)
        inside = np.zeros(len(found.timestamps), dtype=bool)
        for event in u.extra["events"]:  # away from the ends, where a frame hears silence or the next note too
            inside |= (found.timestamps > event["on_s"] + 0.08) & (found.timestamps < event["off_s"] - 0.08)
        voiced = inside & (found.confidence >= 0.5)
        assert voiced.sum() >= 0.9 * inside.sum() > 0, u.id
        cents = 1200 * np.abs(np.log2(found.pitch_hz[voiced] / f0_at(u.extra["f0"], found.timestamps[voiced])))
        assert np.percentile(cents, 95) < 50, u.id
        assert np.median(cents) < 15, u.id


def test_pitch_answers_follow_from_f0(corpus: Manifest) -> None:
    for u in of_task(corpus, "glide", "melody"):
        first, last = u.extra["f0"][0][1], u.extra["f0"][-1][1]
        assert (u.response in ("rising", "higher")) == (last > first)
        assert abs(np.log2(last / first)) > 2.9 / 12


def test_sound_is_where_events_are_and_nowhere_else(corpus: Manifest) -> None:
    for u in corpus:
        level = level_db(u)
        at_s = (np.arange(len(level)) + 0.5) * HOP / RATE
        quiet = np.ones(len(level), dtype=bool)
        for e in u.extra["events"]:
            quiet &= (at_s < e["on_s"] - 0.005) | (at_s > e["off_s"] + 0.005)
        assert quiet.sum() >= 20
        background = 10 * np.log10(np.mean(10 ** (level[quiet] / 10)))
        assert background == pytest.approx(u.extra["noise_dbfs"], abs=2), u.id
        for e in u.extra["events"]:
            first = level[(at_s > e["on_s"]) & (at_s < e["on_s"] + 0.03)].max()
            last = level[(at_s < e["off_s"]) & (at_s > e["off_s"] - 0.03)].max()
            assert min(first, last) > background + 6, (u.id, e)


def test_the_answers_to_count_are_the_bursts_of_energy(corpus: Manifest) -> None:
    for u in of_task(corpus, "count"):
        loud = level_db(u) > u.extra["level_dbfs"] - 20
        bursts = int((np.diff(loud.astype(int), prepend=0) == 1).sum())
        assert ("one", "two", "three")[bursts - 1] == u.response, u.id
        assert len(u.extra["events"]) == bursts


def test_loudness_goes_where_the_answer_says(corpus: Manifest) -> None:
    for u in of_task(corpus, "loudness"):
        (start_s, start_db), (end_s, end_db) = u.extra["gain_db"]
        level = level_db(u)[int(start_s * RATE / HOP) + 4 : int(end_s * RATE / HOP) - 4]
        slope = np.polyfit(np.arange(len(level)) * HOP / RATE, level, 1)[0]  # dB a second
        assert slope == pytest.approx((end_db - start_db) / (end_s - start_s), rel=0.25), u.id
        assert (slope > 0) == (u.response == "louder")


def test_tempo_goes_where_the_answer_says(corpus: Manifest) -> None:
    for u in of_task(corpus, "tempo"):
        loud = np.flatnonzero(level_db(u) > u.extra["level_dbfs"] - 25)
        onsets = loud[np.diff(loud, prepend=-100) > 5] * HOP / RATE
        np.testing.assert_allclose(onsets, [e["on_s"] for e in u.extra["events"]], atol=0.012)
        intervals = np.diff(onsets)
        assert (intervals[-2:].mean() < intervals[:2].mean()) == (u.response == "faster")


def band_spectrum(u: Utterance) -> np.ndarray:
    """Mean log power in 24 bands of 100 to 7000 Hz, its own mean removed: loudness does not count."""
    samples = decode(u.audio).samples_T
    power = np.abs(np.fft.rfft(samples)) ** 2
    edges = np.geomspace(100, 7000, 25) / (RATE / len(samples))
    bands = np.array([np.log(power[int(a) : int(b)].mean()) for a, b in itertools.pairwise(edges)])
    return bands - bands.mean()


@pytest.mark.parametrize("task", ["vowel", "sound"])
def test_kinds_can_be_told_apart_on_heldout_clips(corpus: Manifest, task: str) -> None:
    """By the nearest mean spectrum: a weak listener, far above chance (1 in 5)."""
    train: dict[str | None, list[np.ndarray]] = defaultdict(list)
    heldout = []
    for u in of_task(corpus, task):
        spectrum = band_spectrum(u)
        heldout.append((spectrum, u.response)) if u.id.startswith("heldout") else train[u.response].append(spectrum)
    means = {answer: np.mean(spectra, axis=0) for answer, spectra in train.items()}
    right = [min(means, key=lambda a, s=s: float(np.sum((means[a] - s) ** 2))) == answer for s, answer in heldout]
    assert np.mean(right) >= 0.7


@pytest.mark.parametrize("name", TASKS)
def test_pairs_differ_in_their_answer_and_in_nothing_else(name: str) -> None:
    """Length, level and background are equal, sample by sample; so is all that the task leaves free."""
    assert name in {task for tasks in FACTORS.values() for task in tasks}
    seen = set()
    for number in range(6):
        pair = make_pair(7, number, name)
        assert pair == make_pair(7, number, name)
        (first_T, second_T), (first, second) = (
            [soundfile.read(io.BytesIO(f))[0] for f, _, _ in pair],
            [t for *_, t in pair],
        )
        answers = tuple(answer for _, answer, _ in pair)
        assert answers[0] != answers[1]
        seen.add(answers)
        margin = round(0.09 * RATE)  # before the first sound and behind the last there is background alone
        assert len(first_T) == len(second_T)
        for quiet in (slice(0, margin), slice(len(first_T) - margin, None)):
            assert np.abs(first_T[quiet]).max() > 0
            np.testing.assert_allclose(first_T[quiet], second_T[quiet], atol=1.01 / 2**15)
        levels = [20 * np.log10(np.abs(sound_T).max()) for sound_T in (first_T, second_T)]
        assert levels == pytest.approx([first["level_dbfs"]] * 2, abs=0.4)  # with noise on top
        same = {
            "glide": ("events",),
            "vowel": ("events",),
            "loudness": ("f0",),
            "melody": ("timing",),
            "sound": ("timing",),
        }
        for key in ("duration", "level_dbfs", "noise_dbfs", *same.get(name, ())):
            if key == "timing":
                assert [(e["on_s"], e["off_s"]) for e in first["events"]] == [
                    (e["on_s"], e["off_s"]) for e in second["events"]
                ]
            else:
                assert first.get(key) == second.get(key), key
        if name == "glide":  # the same way, there and back
            assert [hz for _, hz in first["f0"]] == pytest.approx([hz for _, hz in second["f0"]][::-1])
    answers = TASKS[name].answers
    assert len(seen) == min(6, len(answers) * (len(answers) - 1))
