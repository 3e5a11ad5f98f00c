"""Audio Flamingo 3 (arXiv 2507.08128; weights nvidia/audio-flamingo-3-hf, NVIDIA's non-commercial licence).

Audio stands in the text as <sound>..., without tokens around it, 25 positions a second. It is heard in windows of 30 s,
stacked on the first axis, up to 600 s; its processor cuts what is longer, with a warning, so it is refused here. One
audio a text.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from coat.trainer.students.base import Student, index_after_last
from coat.trainer.students.whisper_tower import MIN_MEL_FRAMES


class AudioFlamingo3(Student):
    model_type = "audioflamingo3"
    model_class = "AudioFlamingo3ForConditionalGeneration"
    processor_class = "AudioFlamingo3Processor"
    min_mel_frames = MIN_MEL_FRAMES
    audio_token = "<sound>"  # noqa: S105
    turn_end = "<|im_end|>"
    max_audios = 1

    @property
    def window_samples(self) -> int:
        return self.processor.feature_extractor.n_samples

    @property
    def max_samples(self) -> int:
        windows = int(self.processor.max_audio_len // self.processor.feature_extractor.chunk_length)
        return windows * self.window_samples

    def feature_rows(self, samples: int) -> int:
        return -(-samples // self.window_samples)

    def audio_positions(self, samples: int) -> int:
        windows, rest = divmod(samples, self.window_samples)
        whole = super().audio_positions(self.window_samples)
        return windows * whole + (super().audio_positions(rest) if rest else 0)

    def audio_end(self, ids: Sequence[int]) -> int:
        return index_after_last(ids, self.model.config.audio_token_id)

    def stack_features(self, features: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """In the tower's precision, which transformers leaves to the caller here."""
        stacked, dtype = super().stack_features(features), self.model.model.audio_tower.dtype
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in stacked.items()}
