"""What a unit costs beside decoding, model and data: 2,000 units of an expert that does nothing.

The targets of Null are stated to be so fast that a second of audio fills a unit; each row gives one frame. All of
a run is counted, from the manifest to the last outcome: planning, units to the workers, a clip to decode, three small
files to commit, reports back. Only the start is apart.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.common import ROOT, Figure, ray_of, results, run
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.plan.planning import UNIT_BYTES

SECONDS = 0.5  # of a row; two rows a unit
DIM = 1024
TARGET_MS = 20.0


class Null(Expert):
    """A frame of zeros per clip; one second fills a unit by its stated rate."""

    name = "null"
    card = Card(family="activity", kind="scalars", what="nothing", source="benchmarks", licence="none", dim=DIM)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(
            dim=DIM, rate_hz=UNIT_BYTES / (2 * DIM), start_s=0.0, sample_rate=16000, min_samples=1
        )

    def load(self, device: str) -> None:
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [np.zeros((1, DIM), np.float32) for _ in waveforms]


def rows_of_one_file(units: int) -> Path:
    """Two rows a unit, spans of one short file."""
    folder = ROOT / f"spans-{units}"
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(2 * SECONDS * 16000)).astype(np.float32)
    soundfile.write(folder / "one.flac", samples, 16000)
    rows = [
        {"id": f"r{i}", "audio_filepath": "one.flac", "offset": i % 2 * SECONDS, "duration": SECONDS}
        for i in range(2 * units)
    ]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=2000)
    most_units = parser.parse_args().units
    with results("overhead") as found:
        here, ray = Resources(workers=0, device="cpu"), ray_of(1)
        for label, resources, units in (("in process", here, most_units), ("one Ray worker", ray, most_units // 2)):
            cpu = time.process_time()
            measured = run(rows_of_one_file(units), ROOT / "store", "benchmarks.overhead:Null", None, resources)
            assert measured.summary.units_done == units, measured.summary.units_done
            value = 1000 * (measured.steady_seconds + measured.end_seconds) / units
            driver = 1000 * (time.process_time() - cpu) / units
            found.data[label] = {
                "units": units,
                "steady_seconds": measured.steady_seconds,
                "end_seconds": measured.end_seconds,
                "startup_seconds": measured.startup_seconds,
                "cpu_ms_per_unit_of_this_process": driver,
            }
            own = "" if label == "in process" else f"; the driver's own CPU time: {driver:.1f} ms"
            found.add(
                Figure(
                    f"A unit with nothing to do, of {units}, {label}",
                    f"{value:.1f} ms",
                    f"< {TARGET_MS:.0f} ms",
                    value < TARGET_MS,
                    f"all of plan, decode, commit and report{own}",
                )
            )


if __name__ == "__main__":
    main()
