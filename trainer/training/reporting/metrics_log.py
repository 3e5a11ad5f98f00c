"""What a run reports: lines of JSON in its folder, the same in TensorBoard's format, and to trackers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coat.trainer.run_folder import EVALUATION_FILE, METRICS_FILE, SAMPLES_FILE, read_rows
from coat.trainer.training.reporting.trackers import Trackers
from coat.trainer.training.step.watchdog import SkippedStep

TENSORBOARD_ANSWERS = 8  # of an evaluation


@dataclass(frozen=True)
class Report:
    """One logged step, for progress lines. `values` are what metrics.jsonl holds."""

    step: int
    steps: int
    first: int  # step at which this call began: above 0 where it resumed
    stage: str
    values: Mapping[str, float]


class MetricsLog:
    """Appends rows, on the main rank. A resumed run first drops the rows after its checkpoint: they come again."""

    def __init__(self, folder: Path, step: int, trackers: Trackers) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.files = {name: RowsFile(folder, name, step) for name in (METRICS_FILE, EVALUATION_FILE, SAMPLES_FILE)}
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self.trackers = trackers

    def write(self, report: Report) -> None:
        self.files[METRICS_FILE].write({"step": report.step, "stage": report.stage, **report.values})
        self.write_scalars(report.values, report.step)

    def write_skipped(self, steps: Sequence[SkippedStep]) -> None:
        """A row for each: `not_finite`, what was not, and `ids` of its samples. A step that is logged has its own."""
        for skipped in steps:
            row = {"step": skipped.step, "not_finite": list(skipped.what), "ids": list(skipped.ids)}
            self.files[METRICS_FILE].write(row)

    def evaluated(self, step: int) -> bool:
        return self.files[EVALUATION_FILE].last_step == step

    def write_evaluation(self, step: int, values: Mapping[str, float], answers: Sequence[Mapping[str, Any]]) -> None:
        for row in answers:
            self.files[SAMPLES_FILE].write({"step": step, **row})
        self.files[EVALUATION_FILE].write({"step": step, **values})
        self.write_scalars({f"eval/{name}": value for name, value in values.items()}, step)
        if answers:
            table = [[row["prompt"], row["answer"], row["truth"]] for row in answers[:TENSORBOARD_ANSWERS]]
            lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in table]
            markdown = "\n".join(["prompt | answer | truth", "--- | --- | ---", *lines])
            self.tensorboard.add_text("samples", markdown, step)

    def write_scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.tensorboard.add_scalar(name, value, step)
        self.trackers.write(values, step)

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.tensorboard.close()
        self.trackers.close()


class RowsFile:
    """A file of JSON rows with steps. It is made with its first row."""

    def __init__(self, folder: Path, name: str, step: int) -> None:
        self.path = folder / name
        self.last_step: int | None = None
        if self.path.exists():
            rows = [row for row in read_rows(self.path) if row["step"] <= step]
            self.last_step = rows[-1]["step"] if rows else None
            self.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.file: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        if self.file is None:
            self.file = self.path.open("a", encoding="utf-8")
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        self.last_step = row["step"]

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
