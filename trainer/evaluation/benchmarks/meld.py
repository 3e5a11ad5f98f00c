"""MELD (arXiv 1810.02508): the emotion of 2,610 test utterances of a television series, one of seven.

Source: github.com/declare-lab/MELD, GPL-3.0. A record of one of three forms:

    {"audio": ".../dia0_utt0.wav", "prompt": "...", "source": "meld", "gt": "surprise"}       as Qwen2-Audio evaluates
    it Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,...                   test_sent_emo.csv of
    its authors
    {"context": audio, "instruction": "...", "answer": "surprise"}                            as AudioBench has it,
    Parquet

Of the second form audio is diaD_uttU.mp4 (FFmpeg reads it).
"""

from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import Published, Source
from coat.trainer.evaluation.rules.emotion import EmotionBenchmark


class MELD(EmotionBenchmark):
    name = "meld"
    version = "test split"
    licence = "GPL-3.0"
    source = Source("https://github.com/declare-lab/MELD", "2018-10")
    hub_id = "AudioLLMs/meld_emotion_test"
    rows = 2610
    labels = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
    published = (
        Published("Qwen2-Audio-7B", 0.553, where="its report, exact string"),
        Published("Qwen2.5-Omni-7B", 0.570, where="its report"),
    )

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if "Dialogue_ID" not in record:
            return super().to_row(record)
        name = f"dia{record['Dialogue_ID']}_utt{record.get('Utterance_ID')}"
        row = self.label_row(record, f"{name}.mp4", str(record.get("Emotion", "")).strip().lower())
        return {"id": name, **row, "prompt": self.question, "emotion": row["response"]}
