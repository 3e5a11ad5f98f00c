"""TitaNet: who is speaking, frame by frame: the encoder of a NeMo speaker model before its frames are pooled.

Source   TitaNet (Koluguri et al. 2021, arXiv 2110.04410) by NVIDIA NeMo (github.com/NVIDIA-NeMo/NeMo, Apache-2.0): any
         EncDecSpeakerLabelModel with a convolutional encoder (TitaNet, SpeakerNet: arXiv 2010.12653); hub id or `.nemo`
Licence  of the checkpoint (TitaNet-Large: CC BY 4.0)
Rate     16 kHz / hop (160) / product of strides (1) = 100 frames a second; dim = filters of the block (3072)
Frame    i is centred at sample 160 * i; T // 160 frames. It hears 0.47 s on both sides through its convolutions, and
         the whole clip through squeeze-and-excitation (a mean over time) and the normalisation of each mel band
Values   `--layer last` (default): the last block, of which the model's decoder makes one speaker vector by attentive
         pooling. `--layer n` of 1 to L: after block n; deeper ones are not loaded. Blocks 1 to 4 are 1024 wide

Padding is masked in convolutions and left out of the means, so clips are padded (nemo_encoder.py).

Clips over 30 s are heard in windows of 30 s, each normalised and squeezed on its own; frames with 2 s on both sides
are kept.

Limits: 3072 numbers at 100 Hz are 614 kB a second as float16; reduce them in the shards (--rate, --pca) or take block
4. Trained on clips of 3 s with one speaker; where several take turns, the means over the clip mix them.
"""

from coat.extractors.expert import Card
from coat.extractors.experts.nemo import Nemo


class TitaNet(Nemo):
    name = "titanet"
    card = Card(
        family="speaker",
        kind="representation",
        what="hidden state of a speaker model",
        source="TitaNet (arXiv 2110.04410)",
        licence="of the checkpoint (TitaNet-Large: CC BY 4.0)",
        checkpoint="nvidia/speakerverification_en_titanet_large",
        extra="nemo",
        requires=("nemo", "omegaconf"),
    )
    batch_seconds = 120.0
    window_s = 30.0
    encoders = ("ConvASREncoder",)
    decoders = ("SpeakerDecoder",)
