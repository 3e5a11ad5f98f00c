"""CLAP: the audio tower of a contrastive language-audio model, one vector per column of its last grid.

Source   LAION-CLAP (Wu et al. 2022, arXiv 2211.06687), tower HTSAT (2202.00874); transformers ClapAudioModel. Weights
         Apache-2.0; any checkpoint of model_type `clap`, such as laion/clap-htsat-unfused, clap-htsat-fused
Rate     48 kHz; the 1001 mel frames (hop 480) of 10 s are stretched to 1024 = spec_size * freq_ratio, corners aligned;
         patches of stride 4 and three merges of 2 leave 32 columns: 1023 / 1000 * 100 Hz / 32 = 3.196875 frames a
         second; dim = 96 * 2**3 = 768
Frame    i stands for stretched mel frames 32 * i to 32 * i + 31, averaged over frequency: centred at
         (32 * i + 15.5) * 1000 / 1023 mel frames, which are centred every 480 samples: 0.1515 s + 0.3128 s * i. A frame
         is kept where its centre lies in the clip
Values   the last hidden state, after the final norm; nothing of the text tower is loaded

Preprocessing is the model's own for a clip of exactly 10 s (log-mel in dB; no normalisation but the model's batch
norm), with the filters that `truncation` in preprocessor_config.json means. Shorter clips are followed by zeros up to
10 s. CLAP's own feature extractor instead repeats short clips (`repeatpad`) and takes random parts of long ones
(`rand_trunc`, `fusion`): frames would have no time of their own. Of fused checkpoints the branch for longer clips is
left out, as they leave it out for clips up to 10 s.

Longer clips: windows of 10 s, of which frames with 1 s on both sides are kept, each from the sample nearest to a frame
on. A frame hears its whole window; there is no single pass of longer audio to equal.

Limits: trained on whole clips with a caption each. The stretched spectrogram is cut into four parts of 2.5 s, laid one
above the other as one image: attention looks across the cuts, so sounds 2.5 s off leak in. Every clip costs 10 s.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from coat.extractors.checkpoints.checkpoint import build_config, open_checkpoint
from coat.extractors.checkpoints.loading import load_pretrained
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

MEL_FLOOR = 1e-10  # power, before the logarithm


class CLAP(Expert):
    name = "clap"
    card = Card(
        family="events",
        kind="representation",
        what="hidden state of a column of patches",
        source="LAION-CLAP (arXiv 2211.06687)",
        licence="Apache-2.0",
        rate_hz=3.196875,
        checkpoint="laion/clap-htsat-unfused",
    )
    takes = ("checkpoint", "precision", "compile")
    batch_seconds = 160.0  # sixteen windows

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        from transformers import ClapAudioConfig

        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_checkpoint("clap", name, ["clap"])
        self.config = config = build_config(files.where, ClapAudioConfig, files.get("audio_config", dict))
        features = files.features()
        rate, self.mel_hop = features.get("sampling_rate", 48000), features.get("hop_length", 480)
        self.size = round(features.get("max_length_s", 10) * rate)  # samples of a window
        stretched = config.spec_size * (config.spec_size // config.num_mel_bins)  # mel frames, as the model sees them
        mel_frames = self.size // self.mel_hop + 1
        stride = config.patch_stride if isinstance(config.patch_stride, int) else config.patch_stride[1]
        column = stride * 2 ** (len(config.depths) - 1)  # stretched mel frames a column
        if features.get("feature_size", 64) != config.num_mel_bins or mel_frames > stretched:
            raise InputError(
                f"{files.where}: preprocessor_config.json gives {features.get('feature_size', 64)} x {mel_frames} mel "
                f"frames; the model takes {config.num_mel_bins} x at most {stretched}"
            )
        step = (mel_frames - 1) / (stretched - 1) * self.mel_hop  # samples a stretched mel frame
        self.hop, self.centre = column * step, (column - 1) / 2 * step
        self.window_s = self.size / rate
        self.context_s = self.window_s / 10
        self.spec = self.describe(
            dim=config.patch_embeds_hidden_size * 2 ** (len(config.depths) - 1),
            rate_hz=rate / self.hop,
            start_s=self.centre / rate,
            sample_rate=rate,
            min_samples=math.floor(self.centre) + 1,
            weights=files.digest,
            checkpoint=name,
            settings={"pooling": "mean over frequency", "padding": "zeros"},
        )

    def load(self, device: str) -> None:
        import torch
        from transformers import ClapAudioModel, ClapFeatureExtractor

        tower = {r"^audio_model\.": ""}
        self.model = load_pretrained(self.files, ClapAudioModel, config=self.config, key_mapping=tower)
        self.model = prepare_model(self.model, device, self.options)
        self.device = device
        features = ClapFeatureExtractor.from_pretrained(self.files.folder)
        self.fft = features.fft_window_size
        filters_FM = features.mel_filters if features.truncation == "fusion" else features.mel_filters_slaney
        self.filters_FM = torch.from_numpy(np.asarray(filters_FM, dtype=np.float64)).to(device)
        self.taper = torch.hann_window(self.fft, dtype=torch.float64, device=device)

    def padded_samples(self, samples: int) -> int:
        return self.size

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        import torch

        if not waveforms:
            return []
        padded_BT = np.stack([np.pad(x, (0, self.size - len(x))) for x in waveforms])
        with torch.inference_mode():
            mel_BTM = self.mel(to_device(padded_BT, self.device))
            not_longer = torch.zeros(len(waveforms), 1, dtype=torch.bool, device=self.device)
            with autocast(self.device, self.spec.precision):
                states_BDFN = self.model(mel_BTM[:, None], is_longer=not_longer).last_hidden_state
            states_BND = states_BDFN.mean(dim=2).transpose(1, 2)
        frames = [math.ceil((len(x) - self.centre) / self.hop) for x in waveforms]
        return [states_ND[:n] for states_ND, n in zip(to_host(states_BND, self.frames_dtype), frames, strict=True)]

    def mel(self, padded_BT: "torch.Tensor") -> "torch.Tensor":
        """dB, as ClapFeatureExtractor computes it: in double precision, for the sake of quiet bands."""
        import torch

        spectrum_BFT = torch.stft(
            padded_BT.double(), self.fft, self.mel_hop, window=self.taper, pad_mode="reflect", return_complex=True
        )
        power_BTM = spectrum_BFT.abs().square().transpose(1, 2) @ self.filters_FM
        return (10.0 * power_BTM.clamp(min=MEL_FLOOR).log10()).float()
