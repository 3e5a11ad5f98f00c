"""Any manifest with transcripts: word error rate by your own audio.

    {"id": "a1", "audio_filepath": "a1.flac", "text": "the reference", "language": "en"}

`response` counts before `text`. Whisper's English normaliser where the language is `en` or is not stated, else its
basic one; in languages without spaces (zh, ja, th, ...) every letter is a word, so that WER is CER.
"""

from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import Source
from coat.trainer.evaluation.rules.transcription import QUESTION, Transcription


class SpeechRecognition(Transcription):
    name = "asr"
    version = "yours"
    licence = "yours"
    source = Source("yours", "")
    groups = ("language", "lang", "source", "split")

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Records of ASR sets under their usual names: AudioBench's `context` and `answer`, Qwen2-Audio's `audio` and
        `gt`."""
        audio = next(
            (record[k] for k in ("audio_filepath", "audio", "context", "audio_path", "file") if record.get(k)), None
        )
        text = next(
            (record[k] for k in ("text", "gt", "answer", "sentence", "transcript", "response") if k in record), None
        )
        if audio is None or not isinstance(text, str):
            raise ValueError("no audio and text; expected a record with a transcript")
        kept = {key: record[key] for key in ("id", "offset", "duration", *self.groups) if record.get(key) is not None}
        row = {**kept, "audio_filepath": audio, "prompt": record.get("prompt") or QUESTION}
        return {**row, "response": text.strip(), "text": text.strip()}
