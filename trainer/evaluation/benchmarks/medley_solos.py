"""Medley-solos-DB (Lostanlen et al. 2019): which of eight instruments plays, in 12,236 test clips of 3 s.

Source: zenodo.org/records/3464194, CC BY 4.0. One row of Medley-solos-DB_metadata.csv:

    subset,instrument,instrument_id,song_id,uuid4
    test,clarinet,0,0,0d4c0b22-...

Audio is Medley-solos-DB_SUBSET-INSTRUMENT_UUID4.wav.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from coat.manifests.sources.records import Record
from coat.trainer.evaluation.benchmark import Source
from coat.trainer.evaluation.rules.cmi import of_split
from coat.trainer.evaluation.rules.labels import LabelBenchmark


class MedleySolos(LabelBenchmark):
    name = "medley-solos"
    version = "1.2, test subset"
    licence = "CC-BY-4.0"
    source = Source("https://zenodo.org/records/3464194", "1.2")
    rows = 12236
    hours = 10.1
    labels = (
        "clarinet", "distorted electric guitar", "female singer", "flute", "piano", "tenor saxophone", "trumpet",
        "violin",
    )  # fmt: skip
    groups = ("instrument",)
    prediction_keys = ("response", "pred")

    def records(self, source: str) -> Iterator[Record]:
        rows = super().records(source)
        yield from of_split(
            (Record(r.file, r.row, {**r.values, "split": r.values.get("subset")}, r.problem, r.note) for r in rows),
            "test",
        )

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if missing := [k for k in ("subset", "instrument", "instrument_id", "uuid4") if not str(record.get(k) or "")]:
            raise ValueError(f"no {missing[0]}; expected a row of Medley-solos-DB_metadata.csv")
        name = f"Medley-solos-DB_{record['subset']}-{record['instrument_id']}_{record['uuid4']}"
        row = self.label_row(record, f"{name}.wav", str(record["instrument"]))
        kept = {"instrument": record["instrument"], "song_id": str(record.get("song_id", ""))}
        return {"id": str(record["uuid4"]), "prompt": "Which instrument plays?", **row, **kept}
