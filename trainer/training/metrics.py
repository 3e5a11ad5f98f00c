"""What a run reports, as lines of JSON that are read back, and the same in TensorBoard's format and to trackers.

RUN/metrics.jsonl     one object per logged step
RUN/evaluation.jsonl  one per evaluation: held-out losses and accuracy
RUN/samples.jsonl     one per held-out prompt that was asked there: prompt, answer and truth
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coat.trainer.training.trackers import Trackers

RATES = ("steps_per_s", "samples_per_s", "tokens_per_s")  # tokens: positions without padding
METRICS, EVALUATION, SAMPLES = "metrics.jsonl", "evaluation.jsonl", "samples.jsonl"
BOARD_ROWS = 8  # answers of an evaluation that TensorBoard shows


@dataclass(frozen=True)
class Report:
    """One logged step, for progress lines. `values` are what metrics.jsonl holds."""

    step: int
    steps: int
    first: int  # step at which this call began: above 0 where it resumed
    stage: str
    values: Mapping[str, float]


class Meter:
    """Means over the steps since the last log: sums of losses over sums of their counts."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, total: float, count: float) -> None:
        self.sums[name] += total
        self.counts[name] += count

    def add_step(
        self,
        sums: Mapping[str, float],
        totals: Mapping[str, float],
        weights: Mapping[str, float],
        work: Sequence[float],
    ) -> None:
        """A step's sums of losses, their counts and weights; `work`: positions without padding and with it, samples."""
        for name, value in sums.items():
            self.add(name if name == "ce" else f"distill/{name}", value, totals[name])
        self.add("loss", sum(weights[n] * v / max(totals[n], 1.0) for n, v in sums.items()), 1)
        used, padded, samples = work
        self.add("padding", padded - used, padded)
        for name, amount in zip(RATES, (1, samples, used), strict=True):
            self.add(name, amount, 0)

    def add_time(self, seconds: float, waited: float) -> None:
        """Of a step, without what is logged, saved and evaluated behind it."""
        self.add("wait_share", waited, seconds)
        for name in RATES:
            self.add(name, 0, seconds)

    def means(self) -> dict[str, float]:
        """Losses without any token or frame in the interval are left out."""
        return {name: self.sums[name] / n for name, n in self.counts.items() if n}

    def clear(self) -> None:
        self.sums.clear()
        self.counts.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clear()
        self.sums.update(state["sums"])
        self.counts.update(state["counts"])


class MetricsLog:
    """Appends rows, on the main rank. A resumed run first drops the rows behind its checkpoint: they are made again."""

    def __init__(self, folder: Path, step: int, trackers: Trackers) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.files = {name: Lines(folder, name, step) for name in (METRICS, EVALUATION, SAMPLES)}
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self.trackers = trackers

    def write(self, report: Report) -> None:
        self.files[METRICS].write({"step": report.step, "stage": report.stage, **report.values})
        self.show(report.values, report.step)

    def evaluated(self, step: int) -> bool:
        return self.files[EVALUATION].last == step

    def write_evaluation(self, step: int, values: Mapping[str, float], answers: Sequence[Mapping[str, Any]]) -> None:
        for row in answers:
            self.files[SAMPLES].write({"step": step, **row})
        self.files[EVALUATION].write({"step": step, **values})
        self.show({f"eval/{name}": value for name, value in values.items()}, step)
        if answers:
            table = [[row["prompt"], row["answer"], row["truth"]] for row in answers[:BOARD_ROWS]]
            lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in table]
            self.board.add_text("samples", "\n".join(["prompt | answer | truth", "--- | --- | ---", *lines]), step)

    def show(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        self.trackers.write(values, step)

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.board.close()
        self.trackers.close()


class Lines:
    """A file of JSON rows with steps. It is made with its first row."""

    def __init__(self, folder: Path, name: str, step: int) -> None:
        self.path = folder / name
        self.last: int | None = None
        if self.path.exists():
            rows = [r for r in read_lines(self.path) if r["step"] <= step]
            self.last = rows[-1]["step"] if rows else None
            self.path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        self.file: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        if self.file is None:
            self.file = self.path.open("a", encoding="utf-8")
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        self.last = row["step"]

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics.jsonl."""
    return read_lines(Path(folder) / METRICS)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of such a file; a last line that a crash cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
