"""Emotion of an utterance: records as Qwen2-Audio and AudioBench write them."""

from collections.abc import Mapping
from typing import Any, ClassVar

from coat.trainer.evaluation.rules.labels import LabelBenchmark
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT, Template

# A record's own prompt lists its labels.
AS_IT_IS = Template("as-it-is", "{question}")


class EmotionBenchmark(LabelBenchmark):
    """Official: the very string of the label, as Qwen2-Audio's script compares (accuracy). AudioBench's is a
    judge's."""

    note = "by Qwen2-Audio's script; AudioBench draws a prompt anew in every run, and has a judge"
    question: ClassVar[str] = "How does the speaker feel?"
    label_names: ClassVar[Mapping[str, str]] = {}  # other names of labels, in lower case
    templates = (COAT, AS_IT_IS, AUDIO_FLAMINGO)
    groups = ("emotion",)
    prediction_keys = ("response", "model_prediction")

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        audio = next((record[key] for key in ("audio", "context", "audio_path") if record.get(key)), None)
        said = record.get("gt") or record.get("answer") or record.get("label")
        if not audio or not isinstance(said, str):
            raise ValueError(
                "no audio and gt (or context and answer); expected a record as Qwen2-Audio or AudioBench has it"
            )
        label = said.strip().lower().rstrip(".")
        row = self.label_row(record, audio, self.label_names.get(label, label))
        given = {"id": str(record["id"])} if record.get("id") else {}
        if not given and isinstance(audio, str):
            given = {"id": audio.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]}
        prompt = record.get("prompt") or self.question
        return {**given, **row, "prompt": str(prompt), "emotion": row["response"]}
