"""Student audio: what the student's own frozen audio tower gives, before the projector to its language model.

Source   Qwen2-Audio (Chu et al. 2024, arXiv 2407.10759; Apache-2.0), Qwen2.5-Omni (Xu et al. 2025, 2503.20215; 7B:
         Apache-2.0), Audio Flamingo 3 (Goel et al. 2025, 2507.08128; NVIDIA, non-commercial): `--checkpoint` is the
         student's hub id or folder. Towers are Whisper-large encoders, tuned; transformers Qwen2AudioEncoder,
         Qwen2_5OmniAudioEncoder, AudioFlamingo3Encoder. Only the tower's tensors are fetched, read and digested
Rate     16 kHz / 160 (mel hop) / 2 (second convolution) / 2 (mean of two) = 25 frames a second; dim = d_model (1280)
Frame    i is the mean of convolution outputs 2 * i and 2 * i + 1, centred on mel frames 4 * i and 4 * i + 2: centred at
         sample 160 * (4 * i + 1). Frames are those that the student makes audio tokens of: with m = ceil(T / 160) mel
         frames, ((m - 1) // 2 + 1) // 2 of them. Clips under 321 samples give none, and no error, in the student
Values   after the pooling and the final norm. Qwen2.5-Omni's tower ends in its projector (`proj`): that is left out

Each hears audio as its processor gives it: Qwen2-Audio and Audio Flamingo 3 a mel of exactly 30 s
(max_source_positions), zeros after the clip's end, which are masked in attention; Qwen2.5-Omni clips of their own
length, in chunks of 2 s (2 * n_window mel frames) whose convolutions, positions and attention see no other chunk. The
mel is clamped at 8 decades under the maximum of what is heard together.

Windows  of 30 s, frames with 2.5 s on both sides are kept: not what these students hear of longer audio (Qwen2-Audio
         drops all after 30 s, Audio Flamingo 3 cuts every 30 s without overlap). Qwen2.5-Omni: windows of 300 s, its
         own limit, with 2 s; chunks lie otherwise in later windows. None is a single pass

Limits: this is what the student hears already: to be reconstructed at its thinking positions, it teaches nothing new.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coat.extractors.checkpoints.checkpoint import build_config
from coat.extractors.checkpoints.loading import load_partial
from coat.extractors.checkpoints.partial import open_partial
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

# A student's or a thinker's, as transformers 4 wrote it and as 5 does.
TOWER = r"(thinker\.)?(model\.)?audio_tower\."
OMNI = ("qwen2_5_omni", "qwen2_5_omni_thinker")
MODEL_TYPES = ("qwen2_audio", *OMNI, "audioflamingo3")
SAMPLE_RATE, MEL_HOP = 16000, 160  # Hz, samples
HOP = 4 * MEL_HOP  # samples a frame: by the second convolution, and by pooling


class StudentAudio(Expert):
    name = "student-audio"
    card = Card(
        family="reconstruction",
        kind="representation",
        what="the student's audio tower",
        source="Qwen2-Audio (arXiv 2407.10759), Qwen2.5-Omni (2503.20215), Audio Flamingo 3 (2507.08128)",
        licence="of the student (Qwen2-Audio: Apache-2.0; Audio Flamingo 3: NVIDIA, non-commercial)",
        rate_hz=SAMPLE_RATE / HOP,
        checkpoint=None,
    )
    takes = ("checkpoint", "precision", "compile")
    batch_seconds = 240.0  # eight windows

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = str(options.checkpoint)
        self.files = files = open_partial("student-audio", name, MODEL_TYPES, TOWER)
        self.kind = files.config["model_type"]
        values = files.config.get("thinker_config", files.config).get("audio_config")
        if not isinstance(values, dict):
            raise InputError(f"{files.where}: config.json has no audio_config; expected a whole student")
        self.config = build_config(files.where, config_class(self.kind), values)
        features = files.features()
        own = {key: features.get(key) for key in ("sampling_rate", "hop_length", "feature_size")}
        if own != {"sampling_rate": SAMPLE_RATE, "hop_length": MEL_HOP, "feature_size": self.config.num_mel_bins}:
            raise InputError(
                f"{files.where}: the feature extractor has {own}; expected {SAMPLE_RATE} Hz, hop {MEL_HOP}, "
                f"{self.config.num_mel_bins} mel bins"
            )
        self.window_s = float(features.get("chunk_length", 30))
        if self.kind in OMNI:
            self.pads = False  # clips lie behind one another
            self.context_s = 2 * self.config.n_window * MEL_HOP / SAMPLE_RATE
        else:
            self.context_s = self.window_s / 12
        self.window_samples = round(self.window_s * SAMPLE_RATE)  # samples of a window
        if self.kind not in OMNI and self.window_samples != self.config.max_source_positions * 2 * MEL_HOP:
            raise InputError(f"{files.where}: chunk_length and max_source_positions differ")
        self.spec = self.describe(
            dim=self.config.d_model,
            rate_hz=SAMPLE_RATE / HOP,
            start_s=MEL_HOP / SAMPLE_RATE,
            sample_rate=SAMPLE_RATE,
            min_samples=2 * MEL_HOP + 1,
            weights=files.digest_with(values, features),
            checkpoint=name,
            settings={"tower": self.kind},
        )

    def load(self, device: str) -> None:
        import torch
        from transformers import WhisperFeatureExtractor

        self.model = load_partial(self.files.where, encoder_class(self.kind), self.config, self.files.tensors_under(""))
        if self.kind in OMNI:
            self.model.proj = torch.nn.Identity()
        self.model = prepare_model(self.model, device, self.options)
        self.device = device
        self.features = WhisperFeatureExtractor.from_pretrained(self.files.folder, dither=0.0)

    def padded_samples(self, samples: int) -> int:
        return samples if self.kind in OMNI else self.window_samples

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        import torch

        if not waveforms:
            return []
        lengths = np.array([-(-len(x) // MEL_HOP) for x in waveforms])  # mel frames
        frames = ((lengths - 1) // 2 + 1) // 2
        mel_BDT = self.mel(waveforms)
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            if self.kind in OMNI:
                together_DT = np.concatenate([m[:, :n] for m, n in zip(mel_BDT, lengths, strict=True)], axis=1)
                states_ND = self.model(
                    to_device(together_DT, self.device), feature_lens=to_device(lengths, self.device)
                ).last_hidden_state
                return np.split(to_host(states_ND, self.frames_dtype), np.cumsum(frames)[:-1])
            states_BND = self.run_padded(to_device(mel_BDT, self.device), to_device(lengths, self.device))
        return [states_ND[:n] for states_ND, n in zip(to_host(states_BND, self.frames_dtype), frames, strict=True)]

    def mel(self, waveforms: Sequence[Waveform]) -> Frames:
        """`[B, mel bins, T]`; every mel frame that hears the end of a clip hears zeros after it."""
        size = self.window_samples
        if self.kind in OMNI:
            size = max(len(x) for x in waveforms) + self.features.n_fft
            size += -size % MEL_HOP
        return self.features(
            [*waveforms],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            max_length=size,
            return_tensors="np",
            device=self.device,
        )["input_features"]

    def run_padded(self, mel_BDT: "torch.Tensor", lengths_B: "torch.Tensor") -> "torch.Tensor":
        """Of Qwen2-Audio, as its model masks it; Audio Flamingo 3's tower does so itself."""
        import torch
        from transformers.masking_utils import create_bidirectional_mask

        real_BT = torch.arange(mel_BDT.shape[-1], device=mel_BDT.device) < lengths_B[:, None]
        if self.kind == "audioflamingo3":
            return self.model(mel_BDT, input_features_mask=real_BT.long()).last_hidden_state
        real_BN = real_BT[:, ::2]  # convolution outputs, centred on mel frames 2 * j
        shape = mel_BDT.new_zeros(*real_BN.shape, 1)
        # The model's own configuration knows which attention it runs, and so which mask that takes.
        mask = create_bidirectional_mask(config=self.model.config, inputs_embeds=shape, attention_mask=real_BN.long())
        return self.model(mel_BDT, attention_mask=mask).last_hidden_state


def config_class(kind: str) -> Any:
    from transformers import AudioFlamingo3EncoderConfig, Qwen2AudioEncoderConfig
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig

    known = {"qwen2_audio": Qwen2AudioEncoderConfig, "audioflamingo3": AudioFlamingo3EncoderConfig}
    return known.get(kind, Qwen2_5OmniAudioEncoderConfig)


def encoder_class(kind: str) -> Any:
    """Imported one by one: each brings its language model's code with it."""
    if kind == "qwen2_audio":
        from transformers import Qwen2AudioEncoder as Encoder
    elif kind == "audioflamingo3":
        from transformers import AudioFlamingo3Encoder as Encoder
    else:
        from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder as Encoder
    return Encoder
