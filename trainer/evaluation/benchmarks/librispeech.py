"""LibriSpeech (Panayotov et al. 2015): 5,559 utterances of read books, test-clean and test-other.

Source: openslr.org/12, CC BY 4.0. A folder of it has SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, whose lines are

    1089-134686-0000 HE HOPED THERE WOULD BE STEW FOR DINNER ...

and the audio beside it, under that id, as .flac. Or Qwen2-Audio's librispeech_eval.jsonl: `audio`, `prompt`, `source`,
`gt`; or Parquet with `audio` and `text`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coat.manifests.sources.records import Record, walk
from coat.trainer.evaluation.benchmark import Published, QuestionRow, Source, Verdict
from coat.trainer.evaluation.benchmarks.asr import SpeechRecognition
from coat.trainer.evaluation.rules.transcription import WER, without_tags
from coat.trainer.evaluation.transcripts.whisper_basic import normalise_basic

HUB_PART = re.compile(r"(clean|other)/(test|validation)")
PART = re.compile(r"(?:test|dev)[-_.](?:clean|other)")


class LibriSpeech(SpeechRecognition):
    name = "librispeech"
    version = "test-clean, test-other"
    licence = "CC-BY-4.0"
    source = Source("https://www.openslr.org/12", "2015-04")
    hub_id = "openslr/librispeech_asr"
    rows = 5559
    hours = 10.7
    note = "by Qwen2-Audio's script; AudioBench's also drops fillers (er, ah), and reads nothing as the word `empty`"
    groups = ("part",)
    published = (
        Published("Qwen2-Audio-7B", 0.016, WER, "test-clean, its report"),
        Published("Qwen2-Audio-7B", 0.036, WER, "test-other, its report"),
        Published("Qwen2.5-Omni-7B", 0.018, WER, "test-clean, its report"),
        Published("Qwen2.5-Omni-7B", 0.034, WER, "test-other, its report"),
        Published("Audio Flamingo 3", 0.0157, WER, "test-clean", read=False),
        Published("Audio Flamingo 3", 0.0313, WER, "test-other", read=False),
    )

    def records(self, source: str) -> Iterator[Record]:
        files = sorted(f for f in walk(Path(source)) if f.name.endswith(".trans.txt")) if Path(source).is_dir() else []
        if not files:
            for r in super().records(source):
                part = {"part": part_of(r.file)} if r.values and part_of(r.file) else {}
                yield Record(r.file, r.row, {**part, **r.values}, r.problem, r.note)
        for file in files:
            folder = file.parent.relative_to(source).as_posix()
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                name, _, text = line.strip().partition(" ")
                yield Record(
                    str(file),
                    number,
                    {"id": name, "audio": f"{folder}/{name}.flac", "text": text, "part": part_of(str(file))},
                )

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        row = super().to_row(record)
        name = (
            row["audio_filepath"].replace("\\", "/").rsplit("/", 1)[-1]
            if isinstance(row["audio_filepath"], str)
            else ""
        )
        part = record.get("part") or part_of(str(record.get("source", ""))) or part_of(str(row["audio_filepath"]))
        given = {"id": name.rsplit(".", 1)[0]} if name and "id" not in row else {}
        return {**given, **row, **({"part": part} if part else {})}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """`compute_wer` of Qwen2-Audio's evaluate_asr.py: tags such as <|en|> go first."""
        return self.compare(row, without_tags(answer), normalise=self.normalise_twice)

    def normalise_twice(self, text: str, language: str) -> str:
        """English goes through the basic normaliser as well there, which drops what is left of %, $ and decimal
        points."""
        return " ".join(normalise_basic(self.normalise(text, language)).split())


def part_of(place: str) -> str:
    """`test-clean`, out of a path or a name; empty where there is none. The hub's folders are clean/test/."""
    place = place.replace("\\", "/")
    if found := PART.search(place):
        return found[0].replace("_", "-").replace(".", "-")
    found = HUB_PART.search(place)
    return f"{found[2]}-{found[1]}" if found else ""
