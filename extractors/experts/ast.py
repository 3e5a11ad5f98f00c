"""AST: hidden states of the Audio Spectrogram Transformer, one vector per column of patches.

Source   AST (Gong et al. 2021, arXiv 2104.01778), fine-tuned on AudioSet; transformers ASTModel. Weights
         BSD-3-Clause; any checkpoint of model_type `audio-spectrogram-transformer`
Rate     16 kHz / 160 (fbank hop) / time_stride 10 = 10 frames a second; dim = hidden_size (768)
Frame    i hears the patches of 16 x 16 (25 ms fbank frames x mel bands) that begin at fbank frame 10 * i, averaged
         over frequency: centred at 1600 * i + 7.5 * 160 + 200 samples (0.0875 s + 0.1 s * i). A frame is kept where
         its centre lies in the clip; its last patches may hear padding
Values   `--layer last` (default): after the final norm. `--layer n` of 1 to L: after layer n, before any norm

The model has positions for max_length fbank frames (1024: 10.24 s): shorter clips are padded (with zeros after
the logarithm, as its feature extractor does). Longer ones are heard in windows of 10.19 s, which is what 101 frames
are centred in, and frames with 1 s on both sides are kept.

Limits: trained on whole clips of 10 s with a label each, so that frames mix in much of their surroundings.
Every clip costs 10.24 s of computing.
"""

from collections.abc import Sequence

from coat.extractors.checkpoints.checkpoint import layer_number, open_checkpoint
from coat.extractors.checkpoints.loading import load_pretrained
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial
from coat.manifests.errors import InputError

FBANK_WINDOW, FBANK_HOP = 0.025, 0.010  # seconds; Kaldi's, which ASTFeatureExtractor does not change
SPECIAL_TOKENS = 2  # CLS and distillation, before the patches


class AST(Expert):
    name = "ast"
    card = Card(
        family="events",
        kind="representation",
        what="hidden state of a column of patches",
        source="AST (arXiv 2104.01778)",
        licence="BSD-3-Clause",
        rate_hz=10.0,
        checkpoint="MIT/ast-finetuned-audioset-10-10-0.4593",
    )
    takes = ("checkpoint", "layer", "precision", "compile")
    trial = Trial(burst_s=0.05)
    batch_seconds = 160.0  # sixteen windows

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_checkpoint("ast", name, ["audio-spectrogram-transformer"])
        features = files.features()
        if features.get("max_length", 1024) != files.get("max_length"):
            raise InputError(f"{files.where}: preprocessor_config.json and config.json differ in max_length")
        rate = features.get("sampling_rate", 16000)
        hop, window = round(FBANK_HOP * rate), round(FBANK_WINDOW * rate)
        patch, stride, longest = files.get("patch_size"), files.get("time_stride"), files.get("max_length")
        self.hop = stride * hop  # samples a frame
        self.centre = ((patch - 1) * hop + window) // 2  # sample at the centre of frame 0
        self.size = (longest - patch) // stride + 1  # frames of a window: 101
        self.window_samples = (longest - 1) * hop + window  # samples of a window
        self.window_s = (self.centre + self.size * self.hop) / rate
        self.context_s = self.window_s / 10
        self.layer = layer_number(files.where, options.layer, files.get("num_hidden_layers"))
        self.spec = self.describe(
            dim=files.get("hidden_size"),
            rate_hz=rate / self.hop,
            start_s=self.centre / rate,
            sample_rate=rate,
            min_samples=max(self.centre + 1, window),
            weights=files.digest,
            checkpoint=name,
            layer=str(self.layer or "last"),
            settings={"pooling": "mean over frequency"},
        )

    def load(self, device: str) -> None:
        import torch
        from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

        config = ASTConfig.from_pretrained(self.files.folder)
        config.num_hidden_layers = self.layer or config.num_hidden_layers
        self.model = load_pretrained(self.files, ASTModel, config=config)
        if self.layer:
            self.model.layernorm = torch.nn.Identity()
        self.model = prepare_model(self.model, device, self.options)
        self.device = device
        self.features = ASTFeatureExtractor.from_pretrained(self.files.folder)

    def padded_samples(self, samples: int) -> int:
        return self.window_samples

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        import torch

        if not waveforms:
            return []
        clips = [x.copy() for x in waveforms]  # torch wants writable memory
        fbank_BTF = self.features(clips, sampling_rate=self.spec.sample_rate, return_tensors="np")["input_values"]
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            states_BPD = self.model(to_device(fbank_BTF, self.device)).last_hidden_state[:, SPECIAL_TOKENS:]
            # Patches come row by row: all times of the lowest band first.
            states_BND = states_BPD.unflatten(1, (-1, self.size)).mean(dim=1)
        found = to_host(states_BND, self.frames_dtype)
        frames = [-(-(len(x) - self.centre) // self.hop) for x in waveforms]
        return [states_ND[:n] for states_ND, n in zip(found, frames, strict=True)]
