"""What a run reports: `metrics.jsonl` (one object per logged step) and the same in TensorBoard's format."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


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
    """Appends rows. A resumed run first drops the rows behind its checkpoint: they are made again."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / METRICS
        rows = read_metrics(folder) if path.exists() else []
        path.write_text("".join(json.dumps(r) + "\n" for r in rows if r["step"] <= step), encoding="utf-8")
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, report: Report) -> None:
        self.file.write(json.dumps({"step": report.step, "stage": report.stage, **report.values}) + "\n")
        self.file.flush()
        for name, value in report.values.items():
            self.board.add_scalar(name, value, report.step)

    def close(self) -> None:
        self.file.close()
        self.board.close()


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics.jsonl; a last line that a crash cut short is left out."""
    rows = []
    for line in (Path(folder) / METRICS).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
