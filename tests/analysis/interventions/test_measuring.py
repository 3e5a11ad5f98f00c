"""The loop: donors, what is left out, kills, ranks; on the student whose map is known."""

from pathlib import Path
from typing import Any

import pytest

from coat.analysis.interventions.kinds import Intervention
from coat.analysis.interventions.measuring import Limits, measure
from coat.analysis.interventions.pairs import PAIR, pair_pools
from coat.analysis.interventions.rows import Encoder, Pool, donors_of, shard_pools
from coat.analysis.interventions.rows_file import RowsFile
from coat.analysis.interventions.student import Intervener
from coat.manifests import InputError, ShardIndex
from coat.trainer.data.collator import Collator
from coat.trainer.model.coat_model import CoatModel
from tests.analysis.interventions.known_student import known_model, tone
from tests.trainer.helpers import toy_config, toy_text, write_shards

NAMES = ("block:other", "block:mean", "block:noise", "audio:hidden")
HEAD = {"interventions": list(NAMES)}


@pytest.fixture(scope="module")
def model(student_dir: Path) -> CoatModel:
    return known_model(student_dir)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows: one of text alone, one without an answer, one whose audio is broken, one of too short a clip."""
    samples = [tone(i, i % 3 == 0, 0.6 + 0.1 * (i % 4), extra={"task": "odd" if i % 2 else "even"}) for i in range(10)]
    samples[2] = {**toy_text(2), "key": "s002"}
    samples[4]["meta"]["response"] = None
    samples[6]["raw"] = {"flac": b"no sound"}
    samples[8]["audio"] = samples[8]["audio"][:200]
    return write_shards(tmp_path_factory.mktemp("rows"), samples)


class Work:
    def __init__(self, model: CoatModel, shards: Path) -> None:
        self.model, self.index, self.config = model, ShardIndex.read(str(shards)), toy_config(shards, shards, shards)
        self.encoder = Encoder(Collator(model.student, model.block, self.index, ()), self.config)

    def pools(self, size: int = 5) -> list[Pool]:
        return list(shard_pools(self.index, self.config, size))

    def run(self, path: Path | None, rank: int = 0, ranks: int = 1, stop_after: int | None = None) -> RowsFile:
        done = 0

        def on_rows(n: int) -> None:
            nonlocal done
            done += n
            if stop_after is not None and done >= stop_after:
                raise KeyboardInterrupt

        file = RowsFile(path, HEAD, rank)
        intervener = Intervener(self.model, [Intervention.parse(name) for name in NAMES], [0, 1])
        measure(
            self.model, iter(self.pools()), self.encoder, intervener, file, limits=Limits(2), rank=rank, ranks=ranks,
            on_rows=on_rows,
        )  # fmt: skip
        return file


def test_what_cannot_be_asked_is_counted(model: CoatModel, shards: Path) -> None:
    file = Work(model, shards).run(None)
    assert sorted(file.records) == list(range(10))
    reasons = {n: record["skipped"] for n, record in file.records.items() if "skipped" in record}
    assert reasons == {2: "no_audio", 4: "no_response", 6: "broken_audio", 8: "too_short"}
    assert {r["extra"]["task"] for n, r in file.records.items() if n not in reasons} == {"odd", "even"}


def test_donors_are_of_another_answer_and_the_same_pool(model: CoatModel, shards: Path) -> None:
    work = Work(model, shards)
    for pool in work.pools():
        rows = work.encoder.checked(pool).usable
        for row, donor in zip(rows, donors_of(rows, work.encoder), strict=True):
            assert donor is not None
            assert donor in rows
            assert donor.texts.response != row.texts.response
    first = work.encoder.checked(work.pools()[0]).usable
    assert donors_of(first[:1], work.encoder) == [None]
    with pytest.raises(InputError, match="its donor is None, which is no usable row of the same pool"):
        donors_of(first, work.encoder, "donor")


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_after_a_kill_the_same_rows_come_out(model: CoatModel, shards: Path, tmp_path: Path, stop_after: int) -> None:
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    Work(model, shards).run(whole).join()
    with pytest.raises(KeyboardInterrupt):
        Work(model, shards).run(stopped, stop_after=stop_after)
    with stopped.open("a") as f:
        f.write('{"number": 9, "id')  # a line that a kill cut
    Work(model, shards).run(stopped).join()
    assert stopped.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match=r"holds other interventions \(interventions .*; choose another --out"):
        RowsFile(whole, {"interventions": ["block:zero"]})
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match=r"other.jsonl:1: not a row of `coat intervene`"):
        RowsFile(tmp_path / "other.jsonl", HEAD)


def test_ranks_share_the_pools(model: CoatModel, shards: Path, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone.jsonl", tmp_path / "shared.jsonl"
    Work(model, shards).run(alone).join()
    second = Work(model, shards).run(shared, rank=1, ranks=2)
    assert second.own == tmp_path / "shared-rank1.jsonl"
    first = Work(model, shards).run(shared, rank=0, ranks=2)
    first.join()
    assert shared.read_bytes() == alone.read_bytes()
    assert second.own is not None
    assert not second.own.exists()


def test_partners_of_a_pair_are_each_others_donors(model: CoatModel, shards: Path) -> None:
    work = Work(model, shards)
    pools = list(pair_pools(3, "prosody", 0, 4, prompt="Well?"))
    rows: list[Any] = [row for pool in pools for row in pool.usable]
    assert [len(pool.rows) for pool in pools] == [4, 4, 4]
    assert [row.number for row in rows] == list(range(12))  # three pairs of loudness, three of tempo
    for pool in pools:
        donors = donors_of(pool.usable, work.encoder, PAIR)
        for row, donor in zip(pool.usable, donors, strict=True):
            assert donor is not None
            assert (donor.clip, donor.texts.prompt) == (row.clip, "Well?")
            assert donor.texts.response != row.texts.response
            assert row.load().seconds == donor.load().seconds
    with pytest.raises(InputError, match="--factor colour: expected one of pitch, vowel"):
        list(pair_pools(1, "colour", 0, 4))
