"""Whisper: hidden states of the encoder of a speech recogniser.

Source   Whisper (Radford et al. 2022, arXiv 2212.04356); transformers WhisperEncoder. Weights Apache-2.0 (hub)
         or MIT (OpenAI); any checkpoint of model_type `whisper`
Rate     16 kHz / 160 (mel hop) / 2 (second convolution) = 50 frames a second; dim = d_model (large-v3: 1280)
Frame    i is centred at sample 320 * i; a frame is kept where its centre lies in the clip: ceil(T / 320) frames
Values   `--layer last` (default): the encoder's output, after its final norm. `--layer n`: the output of layer
         n of 1 to L, before any final norm; deeper layers are not loaded.

Every clip is padded with zeros to 30 s (max_source_positions frames), as the model was trained, so a short one
costs as much as a long one. Longer clips: windows of 30 s that overlap by 5 s, of which the middle is kept; each
window is heard on its own, as a clip would be (Whisper's features are clamped by their own maximum).

Limits: trained on speech; positions beyond a clip's end are never kept, but were attended to.
"""

from collections.abc import Sequence

import numpy as np

from coat.extractors.checkpoints import layer_number, load_pretrained, open_checkpoint
from coat.extractors.devices import autocast, to_device
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.windows import Window, extract_windows, windows
from coat.manifests.errors import InputError
from coat.manifests.spec import TargetSpec

STRIDE = 2  # of the second convolution, in mel frames; kernel 3, padding 1: output j is centred on mel frame 2 * j


class Whisper(Expert):
    card = Card(
        family="speech",
        kind="representation",
        what="encoder hidden state",
        source="Whisper (arXiv 2212.04356)",
        licence="Apache-2.0",
        rate_hz=50.0,
        checkpoint="openai/whisper-large-v3",
    )
    batch_seconds = 240.0  # eight windows

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_checkpoint("whisper", name, ["whisper"])
        features = files.features()
        rate, mel_hop = features.get("sampling_rate", 16000), features.get("hop_length", 160)
        if features.get("feature_size", 80) != files.get("num_mel_bins"):
            raise InputError(f"{files.where}: preprocessor_config.json and config.json differ in mel bins")
        self.hop = mel_hop * STRIDE  # samples a frame
        self.size = files.get("max_source_positions")  # frames of a window: 1500
        self.overlap = self.size // 6
        self.layer = layer_number(files.where, options.layer, files.get("encoder_layers"))
        self.spec = TargetSpec(
            expert="whisper",
            version=1,
            family=self.card.family,
            kind=self.card.kind,
            dim=files.get("d_model"),
            rate_hz=rate / self.hop,
            start_s=0.0,
            sample_rate=rate,
            min_samples=features.get("n_fft", 400),  # one analysis window
            weights=files.digest,
            checkpoint=name,
            layer=str(self.layer or "last"),
            dtype=options.dtype,
            precision=options.precision,
            settings={"window_frames": self.size, "overlap_frames": self.overlap},
        )

    def load(self, device: str) -> None:
        import torch
        from transformers import WhisperConfig, WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        config = WhisperConfig.from_pretrained(self.files.folder)
        config.encoder_layers = self.layer or config.encoder_layers
        prefix = {r"^(model\.)?encoder\.": ""}  # the encoder's own names; the decoder's match nothing and stay on disk
        self.model = load_pretrained(self.files, WhisperEncoder, config=config, key_mapping=prefix)
        if self.layer:
            self.model.layer_norm = torch.nn.Identity()
        self.model.to(device)
        self.device = device
        self.features = WhisperFeatureExtractor.from_pretrained(self.files.folder, dither=0.0)

    def plan(self, samples: int) -> list[Window]:
        return windows(-(-samples // self.hop), self.size, self.overlap)

    def padded_samples(self, samples: int) -> int:
        return len(self.plan(samples)) * self.size * self.hop

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        batch = max(1, int(self.batch_seconds * self.spec.sample_rate) // (self.size * self.hop))
        return extract_windows(waveforms, self.plan, self.cut, self.forward, self.size * self.hop * batch)

    def cut(self, samples_T: Waveform, window: Window) -> Waveform:
        """The window's samples, padded with zeros to the length that the model hears."""
        heard_T = samples_T[window.first * self.hop : (window.first + self.size) * self.hop]
        return np.pad(heard_T, (0, self.size * self.hop - len(heard_T)))

    def forward(self, heard: list[Waveform]) -> Frames:
        """`[B, 30 s, D]`."""
        import torch

        mel_BDT = self.features(
            heard, sampling_rate=self.spec.sample_rate, padding="do_not_pad", return_tensors="np", device=self.device
        )["input_features"]
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            states_BND = self.model(to_device(mel_BDT, self.device)).last_hidden_state
        return states_BND.float().cpu().numpy()
