"""Qwen2-Audio (arXiv 2407.10759; weights Qwen/Qwen2-Audio-7B-Instruct, Apache-2.0).

Audio stands in the text as <|audio_bos|><|AUDIO|>...<|audio_eos|>, 25 positions a second. The tower takes
exactly 2 * max_source_positions mel frames (30 s in the public checkpoints); its processor pads shorter
audio and silently cuts longer audio, so longer audio is refused here.
"""

from collections.abc import Sequence

from coat.trainer.students.base import Student, index_after_last
from coat.trainer.students.whisper_tower import TOWER_STRIDE

MIN_MEL_FRAMES = 7  # two audio positions; with one, transformers takes its legacy merge of unexpanded text


class Qwen2Audio(Student):
    model_type = "qwen2_audio"
    model_class = "Qwen2AudioForConditionalGeneration"
    processor_class = "Qwen2AudioProcessor"
    min_mel_frames = MIN_MEL_FRAMES
    audio_token = "<|AUDIO|>"  # noqa: S105
    turn_end = "<|im_end|>"

    @property
    def max_samples(self) -> int:
        extractor = self.processor.feature_extractor
        frames = TOWER_STRIDE * self.model.config.audio_config.max_source_positions
        return min(frames * extractor.hop_length, extractor.n_samples)

    def audio_end(self, ids: Sequence[int]) -> int:
        return index_after_last(ids, self.tokenizer.convert_tokens_to_ids("<|audio_eos|>"))
