"""NeMo: hidden states of the encoder of any (Fast)Conformer speech model of NVIDIA NeMo.

Source   NeMo (github.com/NVIDIA-NeMo/NeMo, Apache-2.0); FastConformer (Rekesh et al. 2023, arXiv 2305.05084):
         Parakeet (CTC, RNNT, TDT, hybrid), Canary, stt_*_conformer_* and stt_*_fastconformer_*, and the
         self-supervised NEST (arXiv 2408.13106, nvidia/ssl_en_nest_large_v1.0); hub id (`nvidia/...`) or `.nemo` file
Licence  of the checkpoint (Parakeet, Canary, NEST: CC BY 4.0)
Rate     16 kHz / hop (160) / subsampling (8 for FastConformer: 12.5 frames a second; 4 for Conformer: 25)
Frame    i is centred on mel frame `subsampling * i`, that is sample 1280 * i with FastConformer. With causal
         subsampling (streaming models) it hears the past alone: centred subsampling - 1 mel frames earlier
Values   `--layer last` (default): the encoder's output. `--layer n` of 1 to L: after layer n; deeper layers are
         not loaded

Of a `.nemo` file the preprocessor and the encoder are used and nothing else: no decoder, quantizer or masking. How it
is read and run: checkpoints/nemo_archive.py, nemo_encoder.py.

Clips over 40 s are heard in windows of 40 s, each normalised on its own as its training clips were; frames with 2 s
on both sides are kept.
"""

from collections.abc import Sequence
from typing import ClassVar

from coat.extractors.checkpoints.nemo_archive import open_nemo
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.nemo_encoder import NemoEncoder
from coat.extractors.trial import Trial


class Nemo(Expert):
    name = "nemo"
    card = Card(
        family="speech",
        kind="representation",
        what="encoder hidden state",
        source="NVIDIA NeMo, FastConformer (arXiv 2305.05084)",
        licence="of the checkpoint (Parakeet: CC BY 4.0)",
        checkpoint="nvidia/parakeet-tdt-0.6b-v2",
        extra="nemo",
        requires=("nemo", "omegaconf"),
    )
    takes = ("checkpoint", "layer", "precision", "compile")
    trial = Trial(quiet=0.1, loud=0.4, burst_s=0.04)
    batch_seconds = 240.0
    window_s = 40.0
    context_s = 2.0
    encoders: ClassVar[Sequence[str]] = ("ConformerEncoder",)
    decoders: ClassVar[Sequence[str]] = ()  # kinds that a checkpoint must have, where that tells what it is

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        archive = open_nemo(self.name, name)
        if self.decoders:
            archive.component("decoder", kinds=self.decoders)
        self.encoder = NemoEncoder(archive, self.encoders, options.layer)
        self.pads = self.encoder.pads
        self.spec = self.describe(
            **self.encoder.time,
            dim=self.encoder.dim,
            weights=archive.digest,
            checkpoint=name,
            layer=str(self.encoder.layer or "last"),
        )

    def load(self, device: str) -> None:
        self.encoder.load(device, self.options)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return self.encoder.run(waveforms)
