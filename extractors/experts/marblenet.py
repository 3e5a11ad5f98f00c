"""MarbleNet: is someone speaking, by NeMo's frame-wise voice activity detector.

Source   MarbleNet (Jia et al. 2020, arXiv 2010.13886) by NVIDIA NeMo (github.com/NVIDIA-NeMo/NeMo, Apache-2.0): any
         EncDecFrameClassificationModel with a convolutional encoder; hub id (`nvidia/...`) or `.nemo` file
Licence  of the checkpoint (Frame-VAD Multilingual MarbleNet v2.0: NVIDIA Open Model License)
Rate     16 kHz / hop (160) / product of strides (2) = 50 frames a second; ceil((T // 160) / 2) frames
Frame    i is centred at sample 320 * i, as its convolutions are; they hear 1.46 s on both sides. It was trained with
         the label of the 20 ms that begin there
Channels the classes: `non-speech` and `speech` where model_config.yaml calls them 0 and 1, else its labels. A softmax:
         they sum to 1

Padding is masked in convolutions, so clips are padded (nemo_encoder.py).

Windows  of 30 s, with all that a frame hears on both sides: equal to a single pass, unless the checkpoint normalises
         mel bands over the clip (NeMo's configuration for it has `normalize: None`)

Limits: thresholds are the reader's to choose; music with singing is borderline.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from coat.extractors.checkpoints.nemo_archive import open_nemo
from coat.extractors.devices import prepare_model
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.nemo_encoder import NemoEncoder
from coat.extractors.trial import Trial, logit
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

ACTIVATIONS = ("relu", "tanh", "sigmoid")  # the decoder takes any function of torch by its name; a file may not


class MarbleNet(Expert):
    name = "marblenet"
    card = Card(
        family="activity",
        kind="distribution",
        what="probabilities of speech and non-speech",
        source="MarbleNet (arXiv 2010.13886)",
        licence="of the checkpoint (v2.0: NVIDIA Open Model License)",
        checkpoint="nvidia/Frame_VAD_Multilingual_MarbleNet_v2.0",
        extra="nemo",
        requires=("nemo", "omegaconf"),
    )
    takes = ("checkpoint", "precision", "compile")
    trial = Trial(quiet=0.1, loud=0.4, view=logit)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.archive = archive = open_nemo(self.name, name)
        _, decoder = archive.component("decoder", kinds=["MultiLayerPerceptron"])
        labels = [str(label) for label in archive.section("labels") or ()]
        if not labels:
            raise InputError(f"{archive.where}: model_config.yaml has no labels; expected a frame classifier")
        self.layers, self.activation = int(decoder.get("num_layers", 2)), decoder.get("activation", "relu")
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"{archive.where}: activation {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}"
            )
        self.encoder = NemoEncoder(archive, ["ConvASREncoder"])
        self.pads = self.encoder.pads
        self.context_s = self.encoder.reach_s
        whole = 1e-5 if self.encoder.local else None
        self.trial = replace(self.trial, whole=whole)
        # Every second of its layers is an activation.
        archive.require(*(f"decoder.layer{2 * i}.{x}" for i in range(self.layers) for x in ("weight", "bias")))
        self.classes = len(labels)
        self.spec = self.describe(
            **self.encoder.time,
            dim=self.classes,
            weights=archive.digest,
            checkpoint=name,
            channels=("non-speech", "speech") if labels == ["0", "1"] else tuple(labels),
        )

    def load(self, device: str) -> None:
        weights = self.encoder.load(device, self.options)
        from nemo.collections.common.parts import MultiLayerPerceptron

        decoder = MultiLayerPerceptron(self.encoder.dim, self.classes, self.layers, self.activation, log_softmax=False)
        self.archive.load_into(decoder, "decoder.", weights)
        self.decoder = prepare_model(decoder, device, Options())

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return self.encoder.run(waveforms, self.probabilities)

    def probabilities(self, states_BDN: "torch.Tensor") -> "torch.Tensor":
        return self.decoder(states_BDN.transpose(1, 2)).softmax(dim=-1)
