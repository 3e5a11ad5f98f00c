"""Intervals, McNemar and paired differences, against scipy, scikit-learn and what is known of coins."""

import numpy as np
import pytest
from scipy.stats import binomtest

from coat.trainer.evaluation.benchmark import Verdict
from coat.trainer.evaluation.benchmarks.asr import SpeechRecognition
from coat.trainer.evaluation.benchmarks.manifest import ManifestQuestions
from coat.trainer.evaluation.benchmarks.meld import MELD
from coat.trainer.evaluation.predictions import RowScore
from coat.trainer.evaluation.statistics.bootstrap import Clusters, wilson
from coat.trainer.evaluation.statistics.intervals import intervals_by_group
from coat.trainer.evaluation.statistics.mcnemar import mcnemar
from coat.trainer.evaluation.statistics.paired import differences, shared_rows


def scored(identity: str, right: bool, audio: str = "", **sums: tuple[float, float]) -> RowScore:
    parts = Verdict(right, "", sums=sums).parts()
    return RowScore(
        benchmark="b", id=identity, audio=audio, groups={"half": "first" if int(identity) % 2 else "second"},
        status="answered", official=right, strict=right, unparsed=False, official_why="", strict_why="",
        official_sums=parts, strict_sums=parts,
    )  # fmt: skip


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (3, 9), (0, 20), (40, 61), (900, 1000)])
def test_mcnemar_is_a_fair_coin(b: int, c: int) -> None:
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Rows of a coin of 0.7, many times over: 95 % of the intervals hold 0.7, within what 200 tries can tell."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        scores = [scored(str(i), bool(r)) for i, r in enumerate(rng.random(120) < 0.7)]
        low, high = intervals_by_group(ManifestQuestions(), scores)["", ""].strict["accuracy"]
        held += low <= 0.7 <= high
    assert 0.90 <= held / 200 <= 0.985


def test_rows_of_one_clip_are_drawn_together() -> None:
    """Ten questions a clip, all right or all wrong: as sure as the clips are many, not the rows."""
    rng = np.random.default_rng(1)
    right = rng.random(40) < 0.5
    rows = [(clip, bool(r)) for clip, r in enumerate(right) for _ in range(10)]
    together = [scored(str(i), r, audio=f"{clip}.wav") for i, (clip, r) in enumerate(rows)]
    alone = [scored(str(i), r, audio=f"{i}.wav") for i, (_, r) in enumerate(rows)]

    def width(scores: list[RowScore]) -> float:
        low, high = intervals_by_group(ManifestQuestions(), scores)["", ""].strict["accuracy"]
        return high - low

    assert width(together) / width(alone) == pytest.approx(np.sqrt(10), rel=0.15)
    assert Clusters.of(["a", "", "a", ""]).of_row.tolist() == [0, 1, 0, 2]


def test_groups_and_the_same_twice() -> None:
    scores = [scored(str(i), i % 3 == 0) for i in range(60)]
    found = intervals_by_group(ManifestQuestions(), scores)
    assert list(found) == [("", ""), ("half", "first"), ("half", "second")]
    assert found == intervals_by_group(ManifestQuestions(), scores)
    low, high = found["half", "first"].strict["accuracy"]
    assert low < 1 / 3 < high


def test_where_all_rows_agree_it_is_not_sure() -> None:
    scores = [scored(str(i), True) for i in range(3)]
    low, high = intervals_by_group(ManifestQuestions(), scores)["", ""].strict["accuracy"]
    assert (low, high) == pytest.approx(tuple(binomtest(3, 3).proportion_ci(method="wilson")), abs=1e-6)
    assert wilson(0.25, 40) == pytest.approx(tuple(binomtest(10, 40).proportion_ci(method="wilson")), abs=1e-6)


def test_error_rates_are_pooled() -> None:
    """A row of a hundred words weighs a hundred times one of one word."""
    scores = [scored("0", False, wer=(10.0, 100.0)), scored("1", False, wer=(1.0, 1.0))]
    benchmark = SpeechRecognition()
    assert benchmark.figures([Verdict(False, "", sums=s.strict_sums) for s in scores])["wer"] == pytest.approx(11 / 101)
    low, high = intervals_by_group(benchmark, scores)["", ""].strict["wer"]
    assert (low, high) == (pytest.approx(0.1), pytest.approx(1.0))


def test_weighted_f1_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng, benchmark = np.random.default_rng(3), MELD()
    truth = rng.choice(["neutral", "joy", "anger"], 200, p=[0.6, 0.3, 0.1])
    said = np.where(rng.random(200) < 0.6, truth, rng.choice(["neutral", "joy", "sadness", "?"], 200))
    verdicts = [
        benchmark.with_f1(row(str(t)), Verdict(t == s, "", None if s == "?" else str(s), unparsed=s == "?"))
        for t, s in zip(truth, said, strict=True)
    ]
    expected = metrics.f1_score(truth, said, average="weighted", zero_division=0)
    assert benchmark.figures(verdicts)["weighted_f1"] == pytest.approx(expected)
    assert benchmark.figures(verdicts)["accuracy"] == pytest.approx((truth == said).mean())
    assert list(benchmark.figures(verdicts)) == ["accuracy", "weighted_f1"]


def row(label: str):
    from coat.manifests import Utterance

    return Utterance(id="1", audio="a.wav", audio_filepath="a.wav", prompt="?", response=label, choices=MELD.labels)


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    """Two models that agree on 95 % of rows, of which the second has a little more right."""
    rng = np.random.default_rng(5)
    first = rng.random(1000) < 0.6
    second = np.where(rng.random(1000) < 0.06, True, first)
    a = [scored(str(i), bool(r), audio=f"{i}.wav") for i, r in enumerate(first)]
    b = [scored(str(i), bool(r), audio=f"{i}.wav") for i, r in enumerate(second)]
    (one,) = [d for d in differences(ManifestQuestions(), [a], [b]) if d.rule == "strict" and d.group == ("", "")]
    assert one.value == pytest.approx(second.mean() - first.mean())
    assert one.is_one
    assert one.interval
    assert one.interval[0] < one.value < one.interval[1]
    assert one.interval[1] - one.interval[0] < 0.03  # each alone is sure to 0.06
    assert one.discordant
    assert (one.discordant.only_first, one.discordant.only_second) == (0, int((second & ~first).sum()))
    assert one.discordant.p < 1e-6


def test_no_difference_is_said_to_be_none() -> None:
    """Two coins of 0.6: at most a few of forty comparisons find a difference."""
    rng, found = np.random.default_rng(6), 0
    for _ in range(40):
        a, b = ([scored(str(i), bool(r)) for i, r in enumerate(rng.random(200) < 0.6)] for _ in range(2))
        (one,) = [d for d in differences(ManifestQuestions(), [a], [b]) if d.rule == "strict" and d.group == ("", "")]
        found += one.is_one
    assert found <= 6


def test_seeds_widen_the_interval() -> None:
    """Arms whose seeds lie far apart: two seeds each cannot tell them, though rows alone would."""
    rng = np.random.default_rng(8)

    def arm(*shares: float) -> list[list[RowScore]]:
        return [[scored(str(i), bool(r)) for i, r in enumerate(rng.random(800) < share)] for share in shares]

    (apart,) = overall(arm(0.40, 0.60), arm(0.50, 0.70))
    (close,) = overall(arm(0.50, 0.50), arm(0.60, 0.60))
    assert apart.value == pytest.approx(0.1, abs=0.04)
    assert not apart.is_one
    assert close.is_one
    assert apart.discordant is None


def overall(first: list[list[RowScore]], second: list[list[RowScore]]):
    return [d for d in differences(ManifestQuestions(), first, second) if d.rule == "strict" and d.group == ("", "")]


def test_only_rows_that_both_have_are_compared() -> None:
    a = [scored(str(i), True) for i in range(5)]
    b = [scored(str(i), True) for i in (7, 3, 1)]
    first, second, left_out = shared_rows([a], [b])
    assert [s.id for s in first[0]] == [s.id for s in second[0]] == ["1", "3"]
    assert left_out == 4
    with pytest.raises(ValueError, match="share no row"):
        shared_rows([a[:1]], [b])
