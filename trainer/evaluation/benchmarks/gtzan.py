"""GTZAN, genres: the test rows of the fault-filtered split, as CMI-Bench (arXiv 2506.12285) asks them.

Source: github.com/nicolaus625/CMI-bench, CC BY 4.0; GTZAN itself has no licence. One record of CMI_GTZAN.jsonl:

    {"instruction": "...", "input": "<|SOA|><AUDIO><|EOA|>", "output": "hiphop", "split": ["test"],
     "task_type": {"major": ["multi_class"], "minor": ["genre_classification"]},
     "audio_path": ["data/GTZAN/Data/genres_original/hiphop/hiphop.00001.wav"], "audio_start": 0.0, "audio_end": 30.0}

Or a folder of GENRE/*.wav, of which all are taken. The folder is "hiphop" where prompts list "hip-hop".
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from coat.manifests.sources.records import Record
from coat.trainer.evaluation.benchmark import Published, QuestionRow, Source, Verdict
from coat.trainer.evaluation.rules.cmi import cmi_audio, of_split
from coat.trainer.evaluation.rules.labels import LabelBenchmark
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT, Template

AUTHORS = Template(
    "cmi-bench",
    "You are given an audio clip of a music piece. Identify the genre by selecting exactly one option from the "
    "following list: \nGenres: {choices}.\nReturn only the name of the predicted genre. No explanation.\n",
)


class GTZAN(LabelBenchmark):
    name = "gtzan"
    version = "fault-filtered test split"
    licence = "none stated"
    source = Source("https://github.com/nicolaus625/CMI-bench", "630f1ed")
    rows = 290
    hours = 2.4
    labels = ("blues", "classical", "country", "disco", "hip-hop", "jazz", "metal", "pop", "reggae", "rock")
    templates = (AUTHORS, AUDIO_FLAMINGO, COAT)
    template = AUTHORS.name
    groups = ("genre",)
    prediction_keys = ("response", "pred")
    published = (Published("Audio Flamingo 3", 0.832, where="its report; split and prompt unknown", read=False),)

    def records(self, source: str) -> Iterator[Record]:
        """Of the test split alone, where records have one."""
        yield from of_split(super().records(source), "test")

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        audio, span = cmi_audio(record)
        place = PurePosixPath(audio.replace("\\", "/"))
        folder = str(record.get("output") or place.parent.name)
        row = self.label_row(record, audio, "hip-hop" if folder == "hiphop" else folder)
        return {"id": place.stem, "prompt": "Which genre is this music?", **row, **span, "genre": folder}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """The very label of the data: "hiphop", though the prompt lists "hip-hop"."""
        said = answer.strip().lower()
        right = said == row.extra.get("genre", row.response)
        return self.with_f1(
            row,
            Verdict(
                right, "the very label" if right else "another string than its label", row.response if right else None
            ),
        )
