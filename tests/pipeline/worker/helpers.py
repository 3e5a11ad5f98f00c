"""Rows of a plan that tests of a worker begin with."""

from pathlib import Path

from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.plan.units import PlannedRow


def planned_row(path: Path | str = "a.wav", number: int = 0, offset: float = 0.0, seconds: float = 1.0) -> PlannedRow:
    u = Utterance(id=f"r{number}", audio=str(path), audio_filepath=str(path), offset=offset, duration=seconds)
    return PlannedRow(u, f"{number:016x}", seconds)
