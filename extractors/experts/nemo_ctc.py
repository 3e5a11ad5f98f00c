"""NeMo CTC: what a speech recogniser of NVIDIA NeMo hears at each frame: the probability of each of its tokens.

Source   NeMo (github.com/NVIDIA-NeMo/NeMo, Apache-2.0): any CTC model, or the CTC branch (aux_ctc) of a hybrid one:
         Parakeet-CTC and -TDT_CTC, stt_*_fastconformer_*, Conformer-CTC (FastConformer: arXiv 2305.05084), Citrinet
         (2104.01721), QuartzNet (1910.10261); hub id (`nvidia/...`) or `.nemo` file
Licence  of the checkpoint (Parakeet: CC BY 4.0)
Rate     16 kHz / hop (160) / subsampling (8 for FastConformer and Citrinet: 12.5 frames a second; 4 for Conformer, 2
         for QuartzNet)
Frame    i is centred on mel frame `subsampling * i`, that is sample 1280 * i with FastConformer (nemo_encoder.py)
Channels the vocabulary as model_config.yaml lists it (characters, or pieces of words, where `\\u2581` begins one), then
         <blank>; numbered where it lists none. A softmax over them: they sum to 1

Of a `.nemo` file the preprocessor, the encoder and the CTC decoder are used: one convolution of width 1.

Clips over 40 s are heard in windows of 40 s, each normalised on its own as its training clips were; frames with 2 s
on both sides are kept.

Limits: CTC is peaky: most frames are blank, and a token's one frame may lie some way from where it is spoken. Trained
on speech: other sounds come out as blank.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coat.extractors.checkpoints.nemo_archive import open_nemo
from coat.extractors.devices import prepare_model
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.nemo_encoder import NemoEncoder
from coat.extractors.trial import Trial, logit
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

BLANK = "<blank>"  # the last channel


class NemoCTC(Expert):
    name = "nemo-ctc"
    card = Card(
        family="speech",
        kind="distribution",
        what="probabilities of CTC tokens",
        source="NVIDIA NeMo, FastConformer-CTC (arXiv 2305.05084)",
        licence="of the checkpoint (Parakeet: CC BY 4.0)",
        checkpoint="nvidia/parakeet-ctc-0.6b",
        extra="nemo",
        requires=("nemo", "omegaconf"),
    )
    takes = ("checkpoint", "precision", "compile")
    # A burst of a little more than a frame, at a level that hardly moves the normalisation of the clip.
    trial = Trial(quiet=0.1, loud=0.2, burst_s=0.1, view=logit)
    batch_seconds = 240.0
    window_s = 40.0
    context_s = 2.0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.archive = archive = open_nemo(self.name, name)
        hybrid = archive.section("aux_ctc") is not None
        at, self.prefix = (("aux_ctc", "decoder"), "ctc_decoder.") if hybrid else (("decoder",), "decoder.")
        _, decoder = archive.component(*at, kinds=["ConvASRDecoder"])
        vocabulary, given = list(decoder.get("vocabulary") or ()), int(decoder.get("num_classes") or 0)
        self.tokens = given if given > 0 else len(vocabulary)
        if not self.tokens or (vocabulary and len(vocabulary) != self.tokens):
            raise InputError(f"{archive.where}: a decoder of {given} classes with {len(vocabulary)} tokens")
        self.encoder = NemoEncoder(archive, ["ConformerEncoder", "ConvASREncoder"])
        self.pads = self.encoder.pads
        archive.require(*(f"{self.prefix}decoder_layers.0.{x}" for x in ("weight", "bias")))
        self.spec = self.describe(
            **self.encoder.time,
            dim=self.tokens + 1,
            weights=archive.digest,
            checkpoint=name,
            channels=(*(str(token) for token in vocabulary or range(self.tokens)), BLANK),
        )

    def load(self, device: str) -> None:
        weights = self.encoder.load(device, self.options)
        from nemo.collections.asr.modules import ConvASRDecoder

        decoder = ConvASRDecoder(feat_in=self.encoder.dim, num_classes=self.tokens)
        self.archive.load_into(decoder, self.prefix, weights)
        self.decoder = prepare_model(decoder, device, Options())

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return self.encoder.run(waveforms, self.probabilities)

    def probabilities(self, states_BDN: "torch.Tensor") -> "torch.Tensor":
        return self.decoder(encoder_output=states_BDN).exp()
