"""On a student whose map from audio over block to answer is known, interventions find that map, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.analysis.interventions.figures import Line, lines_of
from coat.analysis.interventions.kinds import UNTOUCHED, Intervention
from coat.analysis.interventions.measuring import Limits, measure
from coat.analysis.interventions.rows import Encoder, shard_pools
from coat.analysis.interventions.rows_file import RowsFile
from coat.analysis.interventions.student import Intervener
from coat.manifests import ShardIndex
from coat.trainer.data.collator import Collator
from coat.trainer.model.coat_model import CoatModel
from tests.analysis.interventions.known_student import known_model, tone
from tests.trainer.helpers import toy_config, write_shards

HIGH_OR_LOW = [True, False, True, True, False, True]  # high, low, ... by row


@pytest.fixture(scope="module")
def model(student_dir: Path) -> CoatModel:
    return known_model(student_dir)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lengths = (1.0, 0.7, 1.2, 0.9, 1.1, 0.8)
    samples = [tone(i, high, lengths[i]) for i, high in enumerate(HIGH_OR_LOW)]
    return write_shards(tmp_path_factory.mktemp("known"), samples)


def found(
    model: CoatModel, shards: Path, *names: str, layers: tuple[int, ...] = (0, 1), **options: Any
) -> dict[str, Line]:
    """By intervention, of all rows."""
    config = toy_config(shards, shards, shards)
    index = ShardIndex.read(str(shards))
    encoder = Encoder(Collator(model.student, model.block, index, ()), config)
    interventions = [Intervention.parse(name) for name in names]
    file = RowsFile(None, {})
    intervener = Intervener(model, interventions, list(layers))
    measure(model, shard_pools(index, config, 100), encoder, intervener, file, limits=Limits(4), **options)
    lines = lines_of([file.records[i] for i in sorted(file.records)], names, None)
    return {line.intervention: line for line in lines if not line.group}


def values(line: Line, *figures: str) -> list[float | None]:
    return [line.figures[name].value for name in figures]


def test_the_block_decides_the_answer(model: CoatModel, shards: Path) -> None:
    lines = found(
        model, shards, "block:other", "block:zero", "block:hidden", "block:mean", "audio:other", "audio:hidden"
    )
    assert values(lines[UNTOUCHED], "accuracy", "exact", "donor", "kl") == [1.0, 1.0, 0.0, 0.0]
    assert values(lines["block:other"], "accuracy", "changed", "donor", "lost", "exact") == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert values(lines["audio:other"], "accuracy", "changed", "donor") == [0.0, 1.0, 1.0]
    assert values(lines["audio:hidden"], "accuracy", "changed", "donor", "kl") == [1.0, 0.0, 0.0, 0.0]
    for silent in ("block:zero", "block:hidden"):  # then it says "b", which is right of the two low tones
        assert values(lines[silent], "accuracy", "changed") == pytest.approx([2 / 6, 4 / 6])
    assert values(lines["block:mean"], "accuracy", "changed") == pytest.approx([4 / 6, 2 / 6])  # 4 of 6 are high
    # The state behind the question has heard the audio itself, too: of two channels that differ, the block moves one.
    assert values(lines["block:other"], "shift") == pytest.approx([0.5**0.5])


def test_where_the_map_does_not_look_nothing_changes(model: CoatModel, shards: Path) -> None:
    """Layer 1 reads the block alone, and of it the first expert's positions; layer 0 writes the block."""
    nothing = [1.0, 0.0, 0.0, 0.0, 0.0]
    what = ("accuracy", "changed", "donor", "kl", "shift")
    assert values(found(model, shards, "audio:other", layers=(1,))["audio:other"], *what) == nothing
    assert values(found(model, shards, "block:other", layers=(0,))["block:other"], *what) == nothing
    assert values(found(model, shards, "block:hidden", layers=(0,))["block:hidden"], *what) == nothing
    assert values(found(model, shards, "audio:other", layers=(0,))["audio:other"], "donor") == [1.0]
    assert values(found(model, shards, "block:other", layers=(1,))["block:other"], "donor") == [1.0]
    lines = found(model, shards, "pitch:other", "mel:other", "mel:zero", "mel:noise", "mel:hidden", "pitch:hidden")
    assert values(lines["pitch:other"], "accuracy", "donor") == [0.0, 1.0]
    for unread in ("mel:other", "mel:zero", "mel:hidden"):
        assert values(lines[unread], *what) == nothing
    assert values(lines["pitch:hidden"], "accuracy") == pytest.approx([2 / 6])


def test_figures_are_those_of_the_map(model: CoatModel, shards: Path) -> None:
    """KL between the logits 10 and -9 of "a" and "b", and -10 and 11, by hand; of a share of 1, Wilson's interval."""
    line = found(model, shards, "block:other")["block:other"]
    vocabulary = len(model.student.tokenizer) - len(model.block.new_ids)

    def log_probs(a: float, b: float) -> np.ndarray:
        logits = np.zeros(vocabulary)
        logits[:2] = a, b
        return logits - np.log(np.exp(logits).sum())

    high, low = log_probs(10.0, -9.0), log_probs(-10.0, 11.0)
    of_high, of_low = (np.exp(high) * (high - low)).sum(), (np.exp(low) * (low - high)).sum()
    first = [of_high if is_high else of_low for is_high in HIGH_OR_LOW]  # the token behind it, the end, stays as it is
    assert line.figures["kl"].value == pytest.approx(np.mean(first) / 2, rel=1e-4)
    z2 = 1.959964**2
    assert line.figures["donor"].interval == pytest.approx((6 / (6 + z2), 1.0))


def test_text_without_choices_is_followed_token_by_token(model: CoatModel, tmp_path: Path) -> None:
    samples = [tone(i, i % 2 == 0, choices=[]) for i in range(4)]
    lines = found(model, write_shards(tmp_path / "free", samples), "block:other", "block:hidden")
    assert values(lines[UNTOUCHED], "accuracy", "donor") == [1.0, 0.0]
    assert values(lines["block:other"], "accuracy", "changed", "donor") == [0.0, 1.0, 1.0]
    assert values(lines["block:hidden"], "accuracy", "changed") == [0.5, 0.5]
