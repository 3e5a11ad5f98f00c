"""The best checkpoint of a run by a held-out figure (`run.best`), and how long there was none better (`run.patience`).

RUN/best.json is made anew after each evaluation from the rows of evaluation.jsonl, so a kill between the two leaves
nothing that a resumed run would not mend. What the rows do not say is kept in it: from which step on they count.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from coat.manifests import RunError, storage
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.run_folder import BEST_FILE

VERSION = 1
# What of [evaluation] decides what a figure says; figures of other rows or limits do not compare.
NOT_COMPARED = ("every",)


class BestRecord(BaseModel):
    """RUN/best.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    figure: str  # a key of evaluation.jsonl
    highest: bool  # whether more of it is better
    since: int  # the step from which on evaluations count
    patience_since: int  # the step from which on evaluations without improvement count
    evaluation: dict[str, Any]  # the config's section: what the figure was measured on
    step: int | None = None  # of the best evaluation, and of its checkpoint; None: there was none yet
    value: float | None = None
    without_improvement: int = 0  # evaluations since the best, or since `patience_since`

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """None where the run keeps no best. RunError where the file cannot be read."""
        file = run / BEST_FILE
        if not file.exists():
            return None
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as e:
            raise RunError(f"{file}: not what this version of coat writes ({e.errors()[0]['msg']})") from e

    def write(self, run: Path) -> None:
        storage.write_bytes(str(run / BEST_FILE), storage.to_json(self.model_dump()))

    @classmethod
    def begin(cls, config: TrainConfig, before: "BestRecord | None", step: int) -> Self:
        """What a run counts that goes on at `step`: as `before`, unless another figure is asked for, or of other rows.

        The checkpoints of earlier evaluations may be gone, so those do not count.
        """
        figure, highest = config.run.best or "", config.run.best_is_highest
        evaluation = {k: v for k, v in config.evaluation.model_dump(mode="json").items() if k not in NOT_COMPARED}
        record = cls(figure=figure, highest=highest, since=step, patience_since=step, evaluation=evaluation)
        same = before is not None and (before.figure, before.highest, before.evaluation) == (
            figure, highest, evaluation
        )  # fmt: skip
        if before is None or not same or before.since > step:
            return record
        update = {"since": before.since, "patience_since": min(before.patience_since, step)}
        return record.model_copy(update=update)

    def over(self, rows: Iterable[Mapping[str, Any]]) -> Self:
        """With the best of the rows of evaluation.jsonl. Of equal ones the first is the best.

        RunError where no row that counts has the figure: it names those that there are.
        """
        best: tuple[int, float] | None = None
        count, last, found = 0, {}, False
        for row in rows:
            if row["step"] < self.since:
                continue
            last, value = row, row.get(self.figure)
            if value is None:  # some figures are not of every evaluation
                continue
            found = True
            count += row["step"] > self.patience_since
            if math.isfinite(value) and (best is None or (value > best[1] if self.highest else value < best[1])):
                best, count = (row["step"], value), 0
        if last and not found:
            raise RunError(
                f"run.best {self.figure!r}: no evaluation has such a figure; that of step {last['step']} has "
                f"{', '.join(key for key in last if key != 'step')}"
            )
        step, value = best or (None, None)
        return self.model_copy(update={"step": step, "value": value, "without_improvement": count})

    def __str__(self) -> str:
        """For the log: `no better accuracy in 3 evaluations than 0.71 of step 600`."""
        if self.step is None:
            return f"no {self.figure} yet"
        if not self.without_improvement:
            return f"the best {self.figure}, {self.value:.4g}"
        plural = "s" if self.without_improvement > 1 else ""
        return (
            f"no better {self.figure} in {self.without_improvement} evaluation{plural} than {self.value:.4g} "
            f"of step {self.step}"
        )
