"""Music: hidden states of MERT, a self-supervised model of music.

Source   MERT (Li et al. 2023, arXiv 2306.00107): m-a-p/MERT-v1-95M (default), m-a-p/MERT-v1-330M; model_type
         `mert_model`. Earlier ones of model_type hubert or data2vec-audio (music2vec): the expert wav2vec2
Licence  CC BY-NC 4.0 (weights): not for commercial use. Code: transformers, Apache-2.0
Rate     24 kHz / product of conv_stride (320) = 75 frames a second; dim = hidden_size (95M: 768, 330M: 1024)
Frame    i hears samples 320 * i to 320 * i + 400: centred at 320 * i + 199.5, (T - 400) // 320 + 1 frames
Values   `--layer last` (default), `n`, or `mean:4,5,6`: as in wav2vec2.py, which also says how audio is normalised
         and padded. Which layer serves best depends on the task: lower ones for pitch and key, upper ones for genre

A MERT checkpoint names its own code on the hub, which is not run: without a constant-Q transform beside the
convolutions and without deepnorm its forward pass is HuBERT's, its weights have HuBERT's names, and they are loaded
into transformers' HubertModel. What differs is refused. `attention_relax` does not: only deepnorm's layers use it, and
even there it takes the largest score of a row off that row before softmax, which changes nothing.

Clips over 30 s are heard in windows of 30 s, of which frames with 2 s on both sides are kept (not equal to a single
pass: attention hears the whole window). MERT was trained on clips of 5 s.
"""

from typing import Any

from coat.extractors.expert import Card, Options
from coat.extractors.experts.wav2vec2 import Wav2Vec2
from coat.manifests.errors import InputError

OTHERWISE = {"feature_extractor_cqt": "a constant-Q transform beside its convolutions", "deepnorm": "scaled residuals"}


class Music(Wav2Vec2):
    name = "music"
    card = Card(
        family="music",
        kind="representation",
        what="hidden state of a self-supervised music model",
        source="MERT (arXiv 2306.00107)",
        licence="CC BY-NC 4.0",
        rate_hz=75.0,
        checkpoint="m-a-p/MERT-v1-95M",
    )
    window_s = 30.0
    model_types = ("mert_model",)
    model_class = "HubertModel"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        config, rate = self.files.config, self.spec.sample_rate
        for key, what in OTHERWISE.items():
            if config.get(key):
                raise InputError(
                    f"{self.files.where}: {key} is set: {what}, which HuBERT has not; take another checkpoint"
                )
        if config.get("sample_rate", rate) != rate:
            raise InputError(f"{self.files.where}: preprocessor_config.json and config.json differ in the sample rate")

    def config(self) -> Any:
        from transformers import HubertConfig

        known = HubertConfig().to_dict().keys() - {"model_type"}
        return HubertConfig(**{key: value for key, value in self.files.config.items() if key in known})
