"""Emotion: what a head for the emotion of an utterance makes of each frame.

Source   Dimensional: wav2vec2-large-robust-12-ft-emotion-msp-dim (Wagner et al. 2022, arXiv 2203.07378): arousal,
         dominance and valence, each about 0 to 1. Categorical: superb/wav2vec2-base-superb-er and others (SUPERB, arXiv
         2105.01051; IEMOCAP's classes). Any checkpoint of the wav2vec 2.0 family with one of two heads over the mean of
         its states, which the names of its weights tell apart:
         projector, classifier                 linear (transformers' *ForSequenceClassification), with learned layer
                                               weights where use_weighted_layer_sum says so
         classifier.dense, classifier.out_proj tanh between them (Wav2Vec2ForSpeechClassification)
Licence  CC BY-NC-SA 4.0 (the default's weights): not for commercial use. SUPERB's: Apache-2.0
Rate     16 kHz / 320 = 50 frames a second, centred at 320 * i + 199.5 samples, all frames kept: as in wav2vec2.py,
         which also says how audio is normalised, padded and heard in windows (40 s, not equal to a single pass)
Channels the names in id2label; dim = their number
Values   problem_type `regression`: the head's outputs (kind scalars). Otherwise softmax of them (kind distribution)

What a frame means. The head was trained on the mean of an utterance's states, and is applied to each frame's state
alone: it says what that state would contribute. With the linear head the mean of frame logits *is* the utterance's
logits (so the softmax of the mean of log-probabilities is its distribution). With the tanh head it is not: frames are
more extreme than the utterance, and not calibrated. States hear the whole window, so frames change slowly.

Limits: of acted or podcast speech, mostly English; silence, noise and music get values too, which mean nothing.
"""

from typing import TYPE_CHECKING, Any

from coat.extractors.checkpoints.checkpoint import find_tensor
from coat.extractors.expert import Card
from coat.extractors.experts.wav2vec2 import Wav2Vec2, layer_mix, no_adapter
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

LINEAR, TANH = "classifier.weight", "classifier.out_proj.weight"  # last layers of the two heads
KINDS = {"regression": "scalars", "single_label_classification": "distribution", None: "distribution"}


class Emotion(Wav2Vec2):
    name = "emotion"
    card = Card(
        family="affect",
        kind=None,
        what="arousal, dominance, valence; or classes of emotion",
        source="wav2vec 2.0 on MSP-Podcast (arXiv 2203.07378), SUPERB ER",
        licence="of the checkpoint (audeering: CC BY-NC-SA 4.0)",
        rate_hz=50.0,
        checkpoint="audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
    )
    takes = ("checkpoint", "precision", "compile")
    model_class = "AutoModelForAudioClassification"

    def frame(self) -> dict[str, Any]:
        files = self.files
        no_adapter(files)
        tanh, linear = (find_tensor(files, key) for key in (TANH, LINEAR))
        last = linear if tanh is None else tanh
        if last is None:
            raise InputError(
                f"{files.where}: no head of an emotion model; expected {LINEAR} or {TANH} among its weights"
            )
        self.has_tanh = tanh is not None
        problem, pooling = files.config.get("problem_type"), files.config.get("pooling_mode", "mean")
        if problem not in KINDS or pooling != "mean":
            raise InputError(
                f"{files.where}: a head for {problem} over the {pooling} of states; expected regression or "
                "single_label_classification over their mean"
            )
        if self.has_tanh:
            self.renamed = {r"^classifier\.dense\.": "projector.", r"^classifier\.out_proj\.": "classifier."}
        if files.config.get("use_weighted_layer_sum"):
            self.mix = layer_mix(files, "weighted")
        names, outputs = files.get("id2label", dict), len(last)
        if sorted(names) != sorted(str(i) for i in range(outputs)):
            raise InputError(f"{files.where}: config.json has {len(names)} names in id2label for {outputs} outputs")
        channels = tuple(str(names[str(i)]) for i in range(outputs))
        layer = "weighted" if self.mix else "last"
        return {"dim": outputs, "kind": KINDS[problem], "channels": channels, "layer": layer}

    def config(self) -> Any:
        config = super().config()
        if self.has_tanh:
            config.classifier_proj_size = config.hidden_size
        return config

    def head(self, states_BND: "torch.Tensor") -> "torch.Tensor":
        projected_BND = self.whole.projector(states_BND)
        scores_BND = self.whole.classifier(projected_BND.tanh() if self.has_tanh else projected_BND).float()
        return scores_BND.softmax(dim=-1) if self.spec.kind == "distribution" else scores_BND
