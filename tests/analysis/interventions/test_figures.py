"""Figures of rows that are written down here: counted by hand; intervals over clips; differences on shared rows."""

from typing import Any

import numpy as np
import pytest

from coat.analysis.interventions.figures import Line, lines_of
from coat.analysis.interventions.kinds import UNTOUCHED
from coat.manifests import InputError

SWAP = "block:other"


def record(
    number: int, before: int, after: int | None, clip: str = "", task: str = "t", donors: int | None = None
) -> Any:
    def result(right: int, moved: float) -> dict[str, Any]:
        return {
            "right": right, "changed": int(right != before), "donors": donors, "exact": right, "kl": 0.5 * moved,
            "log_prob": -1.0 - moved, "moved": moved,
        }  # fmt: skip

    return {
        "number": number,
        "id": f"r{number}",
        "clip": clip or f"c{number}",
        "extra": {"task": task},
        "apart": 4.0,
        UNTOUCHED: result(before, 0.0),
        SWAP: None if after is None else result(after, 1.0),
    }


def by_name(lines: list[Line], group: str = "") -> dict[str, Line]:
    return {line.intervention: line for line in lines if line.group == group}


def test_shares_are_counted() -> None:
    records = [record(0, 1, 0, donors=1), record(1, 1, 1, donors=0), record(2, 0, 1), record(3, 1, None, task="u")]
    lines = by_name(lines_of(records, [SWAP], None))
    swap = {name: figure.value for name, figure in lines[SWAP].figures.items()}
    assert (lines[SWAP].rows, lines[UNTOUCHED].rows) == (3, 4)
    assert swap == pytest.approx(
        {"accuracy": 2 / 3, "lost": 0.0, "changed": 2 / 3, "donor": 0.5, "exact": 2 / 3, "kl": 0.5, "log_prob": -2.0,
         "shift": 0.25}
    )  # fmt: skip
    assert lines[UNTOUCHED].figures["accuracy"].value == 0.75
    assert [line.group for line in lines_of(records, [SWAP], None)] == ["", "", "t", "t", "u", "u"]
    nobody = by_name(lines_of(records, [SWAP], None), "u")[SWAP]
    assert (nobody.rows, nobody.figures["accuracy"].value, nobody.figures["accuracy"].interval) == (0, None, None)
    with pytest.raises(InputError, match="--by colour: no row has that key; there are task"):
        lines_of(records, [SWAP], "colour")


def test_intervals_are_over_clips() -> None:
    """Ten rows of each clip are no ten draws: as wide as of the clips alone; beside the normal approximation."""
    rng = np.random.default_rng(0)
    changed = rng.random(60) < 0.4
    of_clips = [record(i, 1, int(not c)) for i, c in enumerate(changed)]
    of_rows = [record(10 * i + n, 1, int(not c), f"c{i}") for i, c in enumerate(changed) for n in range(10)]
    one, ten = (by_name(lines_of(rows, [SWAP], None))[SWAP].figures["changed"] for rows in (of_clips, of_rows))
    assert one.interval == ten.interval
    share = changed.mean()
    half = 1.96 * np.sqrt(share * (1 - share) / 60)
    assert one.interval == pytest.approx((share - half, share + half), abs=0.03)


def test_another_run_is_compared_on_shared_rows() -> None:
    """Its rows are paired by number and id, whatever their order: a difference that all rows share has no width."""
    own = [record(i, 1, 0) for i in range(8)]
    others = [record(i, 1, 1) for i in (5, 3, 4, 11)] + [record(6, 1, None)]
    line = by_name(lines_of(own, [SWAP], None, others))[SWAP]
    assert line.against is not None
    assert (line.rows, line.against["changed"].rows) == (8, 3)
    assert (line.against["changed"].value, line.against["changed"].interval) == (1.0, (1.0, 1.0))
    assert line.against["accuracy"].value == -1.0
    assert line.against["kl"].value == 0.0
