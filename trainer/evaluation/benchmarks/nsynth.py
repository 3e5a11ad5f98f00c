"""NSynth, instrument families (Engel et al. 2017): the 4,096 notes of the test set, of 4 s each.

Source: magenta.tensorflow.org/datasets/nsynth, CC BY 4.0. nsynth-test/examples.json is an object of notes by name:

    {"bass_synthetic_068-049-025": {"note_str": "...", "instrument_family_str": "bass", "instrument_source_str":
    "synthetic",
     "pitch": 49, "velocity": 25, "qualities_str": ["dark"], ...}, ...}

Audio is audio/NAME.wav beside it. Or CMI-Bench's CMI_Nsynth_instrument.jsonl, whose prompt lists instruments (piano,
cello, ...) that are not the labels: it is not used here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from coat.manifests import InputError, storage
from coat.manifests.sources.records import Record
from coat.trainer.evaluation.benchmark import Source
from coat.trainer.evaluation.rules.cmi import cmi_audio, of_split
from coat.trainer.evaluation.rules.labels import LabelBenchmark


class NSynth(LabelBenchmark):
    name = "nsynth"
    version = "test set, instrument families"
    licence = "CC-BY-4.0"
    source = Source("https://magenta.tensorflow.org/datasets/nsynth", "2017-04")
    rows = 4096
    hours = 4.55
    labels = (
        "bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal",
    )  # fmt: skip
    groups = ("instrument_family_str", "instrument_source_str")
    prediction_keys = ("response", "pred")

    def records(self, source: str) -> Iterator[Record]:
        if not source.endswith(".json"):
            yield from of_split(super().records(source), "test")
            return
        notes = storage.read_json(source)
        if not isinstance(notes, dict) or not all(isinstance(note, dict) for note in notes.values()):
            raise InputError(f"{source}: expected an object of notes by name, as examples.json of NSynth")
        yield from (Record(source, i, {"name": name, **note}) for i, (name, note) in enumerate(notes.items(), start=1))

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if "name" in record:
            name, label = str(record["name"]), str(record.get("instrument_family_str"))
            audio, span = f"audio/{name}.wav", {}
        else:
            audio, span = cmi_audio(record)
            name, label = audio.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0], str(record.get("output"))
        origin = record.get("instrument_source_str") or next(
            (s for s in ("acoustic", "electronic", "synthetic") if s in name), None
        )
        row = self.label_row(record, audio, label)
        kept = {"instrument_family_str": label, **({"instrument_source_str": origin} if origin else {})}
        return {"id": name, "prompt": "Which family is the instrument of this note?", **row, **span, **kept}
