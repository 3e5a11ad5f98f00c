"""IEMOCAP (Busso et al. 2008): the emotion of acted dialogues, one of four, as speech emotion is usually reported.

Source: sail.usc.edu/iemocap, by its own licence. The four are angry, happy (with excited), neutral, sad: 5,531
utterances of five sessions. A folder as it is distributed has SESSION/dialog/EmoEvaluation/*.txt, whose lines with an
utterance are

    [6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]

and SESSION/sentences/wav/DIALOGUE/UTTERANCE.wav. Or records as Qwen2-Audio (`audio`, `gt`) and AudioBench (`context`,
`answer`; 1,004 of them) have them.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coat.manifests.sources.records import Record, walk
from coat.trainer.evaluation.benchmark import Source
from coat.trainer.evaluation.rules.emotion import EmotionBenchmark

LINE = re.compile(r"\[\d+\.\d+ - \d+\.\d+\]\t(Ses(\d\d)\w+)_(\w+)\t(\w+)\t")
SHORT = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}


class IEMOCAP(EmotionBenchmark):
    name = "iemocap"
    version = "four emotions"
    licence = "IEMOCAP's own, for research"
    source = Source("https://sail.usc.edu/iemocap", "2008")
    hub_id = "AudioLLMs/iemocap_emotion_recognition"
    rows = 5531
    labels = ("angry", "happy", "neutral", "sad")
    label_names = SHORT | {"anger": "angry", "happiness": "happy", "excited": "happy", "sadness": "sad"}
    groups = ("emotion", "session")

    def records(self, source: str) -> Iterator[Record]:
        """Of the distributed folder, utterances of the four emotions; others have none of the labels."""
        files = (
            sorted(f for f in walk(Path(source)) if f.parent.name == "EmoEvaluation") if Path(source).is_dir() else []
        )
        if not files:
            yield from super().records(source)
        for file in files:
            for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
                if (found := LINE.match(line)) and (label := SHORT.get(found[4])):
                    dialogue, session, turn, _ = found.groups()
                    folder = file.parent.parent.parent.name
                    audio = f"{folder}/sentences/wav/{dialogue}/{dialogue}_{turn}.wav"
                    yield Record(str(file), number, {"audio": audio, "gt": label, "session": session})

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        row = super().to_row(record)
        return row | ({"session": str(record["session"])} if record.get("session") else {})
