"""The encoder of a `.nemo` file behind its mel preprocessor: when its frames are, and running it.

Mel frame j is centred at sample hop * j: NeMo's STFT pads half a window on both sides, and of its T // hop + 1 frames
masks the last. Then come convolutions, each of which moves and spreads frames by its kernel, stride and padding:

  ConformerEncoder  `striding`, `dw_striding`: log2(factor) of kernel 3 and stride 2, padded by 1 on both sides; with
                    causal_downsampling by 2 before and 1 after. What comes after them keeps the frames where they are
  ConvASREncoder    QuartzNet, Citrinet, TitaNet, MarbleNet: those of every block, of odd kernels, padded alike on both
                    sides, so that output j is centred on input stride * j

Dither is 0 and pad_to is 0, so values do not depend on chance or batch. Padding is masked before every convolution and
left out of squeeze-and-excitation's mean, so clips can be padded; not with conv_mask false, nor with norms over time.
Importing NeMo takes ten seconds or more, and is left to `load`.

B clips, T samples, N frames, D dim.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coat.extractors.checkpoints.checkpoint import layer_number
from coat.extractors.checkpoints.nemo_archive import NemoArchive
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Frames, Options, Waveform
from coat.extractors.windows import group_by_length, pad_batch
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

MIN_MEL_FRAMES = 4  # mel frames are normalised by their deviation, which two barely have
OVER_TIME = ("instance_norm", "group_norm")  # norms of a Conformer that hear padding


@dataclass(frozen=True)
class Convolution:
    """What a convolution over time does to frames."""

    span: int  # input frames from the first to the last that an output hears
    stride: int
    before: int  # zeros that are put before the first input
    after: int

    def frames(self, inputs: int) -> int:
        return (inputs + self.before + self.after - self.span) // self.stride + 1

    def centre(self) -> float:
        """Of output 0, in input frames."""
        return (self.span - 1) / 2 - self.before


class NemoEncoder:
    """Preprocessor and encoder of an archive; of its layers (blocks of a ConvASREncoder) those up to `layer`."""

    dim: int
    layer: int | None  # None: the last
    pads: bool  # whether clips can be padded
    local: bool  # whether a frame hears no more than its convolutions reach
    convolutions: list[Convolution]
    names: list[str]  # of the weights that must be there

    def __init__(self, archive: NemoArchive, kinds: Sequence[str], layer: str | None = None) -> None:
        self.archive = archive
        _, mel = archive.component("preprocessor", kinds=["AudioToMelSpectrogramPreprocessor"])
        kind, self.arguments = archive.component("encoder", kinds=kinds)
        self.mel = {**mel, "dither": 0.0, "pad_to": 0}
        self.normalised = mel.get("normalize", "per_feature") in ("per_feature", "all_features")  # over the clip
        try:
            self.rate = int(mel.get("sample_rate", 16000))
            self.mel_hop = int(mel.get("n_window_stride") or float(mel.get("window_stride", 0.01)) * self.rate)
            window = int(mel.get("n_window_size") or float(mel.get("window_size", 0.02)) * self.rate)
            self.describe_conformer(layer) if kind == "ConformerEncoder" else self.describe_jasper(layer)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as e:
            raise InputError(f"{archive.where}: model_config.yaml does not describe a {kind} ({e!r})") from e
        archive.require(*self.names)
        if mel.get("exact_pad") or mel.get("frame_splicing", 1) != 1:
            raise InputError(f"{archive.where}: exact_pad or frame_splicing, whose times are unknown")
        step, centre, reach = 1, 0.0, 0.0  # in mel frames
        for convolution in self.convolutions:
            centre += step * convolution.centre()
            reach += step * (convolution.span - 1) / 2
            step *= convolution.stride
        self.time: dict[str, Any] = {  # of the spec
            "rate_hz": self.rate / (step * self.mel_hop),
            "start_s": centre * self.mel_hop / self.rate,
            "sample_rate": self.rate,
            "min_samples": MIN_MEL_FRAMES * self.mel_hop,
        }
        # Seconds on both sides of its centre that a frame hears through its convolutions: and half an STFT window, and
        # the sample before it, for pre-emphasis.
        self.reach_s = (reach * self.mel_hop + window // 2 + 1) / self.rate

    def describe_conformer(self, layer: str | None) -> None:
        a, where = self.arguments, self.archive.where
        width, layers, factor = int(a["d_model"]), int(a["n_layers"]), int(a.get("subsampling_factor", 4))
        subsampling = a.get("subsampling", "striding")
        if subsampling not in ("striding", "dw_striding") or a.get("reduction"):
            raise InputError(f"{where}: subsampling {subsampling!r} or a reduction, whose times are unknown")
        self.layer = layer_number(where, layer, layers)
        if self.layer:
            self.arguments = a = {**a, "n_layers": self.layer, "feat_out": -1}
        self.dim = max(int(a.get("feat_out", -1)), 0) or width
        self.local = False
        self.pads = not str(a.get("conv_norm_type", "batch_norm")).startswith(OVER_TIME)
        halvings = int(math.log2(factor))
        one = Convolution(span=3, stride=2, before=2 if a.get("causal_downsampling") else 1, after=1)
        self.convolutions = [one] * halvings

        # Pairs of a depthwise and a pointwise convolution after the first one, with an activation after each.
        paired = [0, *(i for j in range(halvings - 1) for i in (3 * j + 2, 3 * j + 3))]
        modules = [f"conv.{i}" for i in (paired if subsampling == "dw_striding" else range(0, 2 * halvings, 2))]
        names = [f"encoder.pre_encode.{module}.{x}" for module in (*modules, "out") for x in ("weight", "bias")]
        # What one layer has, each must have.
        found = [name.split(".", 3)[3] for name in self.archive.finite if name.startswith("encoder.layers.")]
        each = {"norm_out.weight", *found}
        names += [f"encoder.layers.{i}.{name}" for i in range(self.layer or layers) for name in sorted(each)]
        names += ["encoder.out_proj.weight", "encoder.out_proj.bias"] if self.dim != width else []
        self.names = names

    def describe_jasper(self, layer: str | None) -> None:
        a, where = self.arguments, self.archive.where
        self.layer = layer_number(where, layer, len(a["jasper"]))
        blocks = a["jasper"][: self.layer]
        self.arguments = {**a, "jasper": blocks}
        norm, masked = a.get("normalization_mode", "batch"), bool(a.get("conv_mask", True))
        self.dim = int(blocks[-1]["filters"])
        self.pads = masked and norm == "batch"
        self.local = norm == "batch" and not self.normalised and not any(block.get("se") for block in blocks)
        self.convolutions = []
        names = []
        for i, block in enumerate(blocks):
            if block.get("future_context", -1) >= 0:
                raise InputError(f"{where}: future_context, whose times are unknown")
            kernel, stride, dilation = (x[0] if isinstance(x := block[k], list) else x for k in CONVOLUTION)
            kernel = (
                max(int(kernel * float(block.get("kernel_size_factor", 1.0))), 1) // 2 * 2 + 1
            )  # even ones: one more
            padding, repeat = dilation * (kernel - 1) // 2, int(block["repeat"])
            strides = [1 if block.get("stride_last") else stride] * (repeat - 1) + [stride]
            span = dilation * (kernel - 1) + 1
            self.convolutions += [Convolution(span, stride, padding, padding) for stride in strides]

            # Each repetition: one convolution or two, their norm, a shuffle of groups, an activation and dropout.
            convolutions = 2 if block.get("separable") else 1
            size = convolutions + 3 + (block.get("groups", 1) > 1)
            conv = "conv.weight" if masked else "weight"
            norms = ("weight", "bias", "running_mean", "running_var") if norm == "batch" else ("weight", "bias")
            for at in range(0, repeat * size, size):
                names += [f"encoder.encoder.{i}.mconv.{at + j}.{conv}" for j in range(convolutions)]
                names += [f"encoder.encoder.{i}.mconv.{at + convolutions}.{x}" for x in norms]
            if block.get("se"):  # in the place of the last activation
                names += [f"encoder.encoder.{i}.mconv.{repeat * size - 2}.fc.{j}.weight" for j in (0, 2)]
            if block["residual"]:
                names += [f"encoder.encoder.{i}.res.0.0.{conv}", *(f"encoder.encoder.{i}.res.0.1.{x}" for x in norms)]
        self.names = names

    def frames_of(self, samples: int) -> int:
        frames = samples // self.mel_hop
        for convolution in self.convolutions:
            frames = convolution.frames(frames)
        return frames

    def load(self, device: str, options: Options) -> dict[str, Any]:
        """Puts both on the device; gives all weights of the archive, for what comes after the encoder."""
        import_nemo()
        from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor, ConformerEncoder, ConvASREncoder

        try:
            features = AudioToMelSpectrogramPreprocessor(**self.mel)
            model = (ConvASREncoder if "jasper" in self.arguments else ConformerEncoder)(**self.arguments)
        except (TypeError, ValueError, KeyError) as e:
            raise InputError(f"{self.archive.where}: model_config.yaml does not fit the installed NeMo ({e!r})") from e
        weights = self.archive.weights()
        self.archive.load_into(model, "encoder.", weights)
        self.features = features.eval().to(device)
        self.model = prepare_model(model, device, options)
        self.device, self.precision = device, options.precision
        return weights

    def run(
        self, waveforms: Sequence[Waveform], head: "Callable[[torch.Tensor], torch.Tensor] | None" = None
    ) -> list[Frames]:
        """What the encoder gives of each clip, or what `head` makes of it: `[B, D, N]` in, `[B, N, D]` out."""
        found: dict[int, Frames] = {}
        lengths = [len(x) for x in waveforms]
        whole = [list(range(len(waveforms)))] if waveforms else []
        for batch in whole if self.pads else group_by_length(lengths):
            frames_BND = self.forward([waveforms[i] for i in batch], head or transposed)
            for i, frames_ND in zip(batch, frames_BND, strict=True):
                found[i] = frames_ND[: self.frames_of(lengths[i])]
        return [found[i] for i in range(len(waveforms))]

    def forward(self, clips: list[Waveform], head: "Callable[[torch.Tensor], torch.Tensor]") -> Frames:
        import torch

        padded_BT, lengths = pad_batch(clips)
        with torch.inference_mode():
            mel_BDT, mel_lengths = self.features(
                input_signal=to_device(padded_BT, self.device), length=to_device(lengths, self.device)
            )
            with autocast(self.device, self.precision):
                states_BDN, _ = self.model(audio_signal=mel_BDT, length=mel_lengths)
                return to_host(head(states_BDN))


CONVOLUTION = ("kernel", "stride", "dilation")  # of a block: a number, or a list of one


def transposed(states_BDN: "torch.Tensor") -> "torch.Tensor":
    return states_BDN.transpose(1, 2)


def import_nemo() -> None:
    """Without the dozens of warnings of packages that NeMo imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nemo.collections.asr  # noqa: F401
