"""NeMo: hidden states of the encoder of any (Fast)Conformer speech model of NVIDIA NeMo.

Source   NeMo (github.com/NVIDIA-NeMo/NeMo, Apache-2.0); FastConformer (Rekesh et al. 2023, arXiv 2305.05084):
         Parakeet, Canary, stt_*_conformer_* and stt_*_fastconformer_*; hub id (`nvidia/...`) or `.nemo` file
Licence  of the checkpoint (Parakeet and Canary: CC BY 4.0)
Rate     16 kHz / hop (160) / subsampling (8 for FastConformer: 12.5 frames a second; 4 for Conformer: 25)
Frame    i is centred on mel frame `subsampling * i`, that is sample 1280 * i with FastConformer. With causal
         subsampling (streaming models) it hears the past alone: centred subsampling - 1 mel frames earlier
Values   `--layer last` (default): the encoder's output. `--layer n` of 1 to L: after layer n; deeper layers are
         not loaded

A `.nemo` file is a tar with model_config.yaml and model_weights.ckpt. Of these the preprocessor and the encoder
are used and nothing else: no tokenizer, no decoder, no class that a file names, weights with `weights_only=True`
(NeMo's own restore_from does more). Dither is 0 and pad_to is 0, so values do not depend on chance or batch.
Importing NeMo takes ten seconds or more, and is left to `load`.

Clips over 40 s are heard in windows of 40 s, each normalised on its own as its training clips were; frames with 2 s
on both sides are kept.
"""

import functools
import pickle
import tarfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash

from coat.extractors.checkpoints import layer_number, locate
from coat.extractors.devices import autocast, place, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Trial, Waveform
from coat.extractors.windows import pad
from coat.manifests.errors import InputError

MEMBERS = ("model_config.yaml", "model_weights.ckpt")
SUBSAMPLING = (
    "striding",
    "dw_striding",
)  # convolutions of kernel 3 and stride 2, padded by 1 (causal: 2 before, 1 after)


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

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.where = f"--expert nemo: {name}"
        self.path = find_nemo(name, self.where)
        stat = self.path.stat()
        text, digest = read_archive(self.path, self.where, stat.st_size, stat.st_mtime_ns)
        self.preprocessor, self.encoder = parse_config(text, self.where)
        p, e = self.preprocessor, self.encoder
        rate = int(p.get("sample_rate", 16000))
        self.mel_hop = int(p.get("n_window_stride") or float(p.get("window_stride", 0.01)) * rate)
        self.factor = int(e.get("subsampling_factor", 4))
        self.causal = bool(e.get("causal_downsampling", False))
        self.hop = self.mel_hop * self.factor  # samples a frame
        self.layer = layer_number(self.where, options.layer, int(e["n_layers"]))
        if self.layer:
            self.encoder = e = {**e, "n_layers": self.layer, "feat_out": -1}
        early = self.mel_hop * (self.factor - 1) if self.causal else 0
        self.spec = self.describe(
            dim=max(int(e.get("feat_out", -1)), 0) or int(e["d_model"]),
            rate_hz=rate / self.hop,
            start_s=-early / rate,
            sample_rate=rate,
            min_samples=4 * self.mel_hop,  # mel frames are normalised by their deviation, which two barely have
            weights=digest,
            checkpoint=name,
            layer=str(self.layer or "last"),
        )

    def load(self, device: str) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dozens, of packages that NeMo imports
            from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor, ConformerEncoder
        try:
            features = AudioToMelSpectrogramPreprocessor(**{**self.preprocessor, "dither": 0.0, "pad_to": 0})
            model = ConformerEncoder(**self.encoder)
        except (TypeError, ValueError) as e:
            raise InputError(f"{self.where}: model_config.yaml does not fit the installed NeMo ({e})") from e
        with tarfile.open(self.path) as archive:
            stream: Any = archive.extractfile(members(archive, self.where)[1])  # a plain file: not None
            try:
                found = torch.load(stream, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, pickle.UnpicklingError) as e:
                reason = " ".join(str(e).split())[:200]
                raise InputError(f"{self.where}: model_weights.ckpt cannot be loaded ({reason})") from e
        own = model.state_dict()
        state = {key: found[f"encoder.{key}"] for key in own if f"encoder.{key}" in found}
        if missing := sorted(own.keys() - state.keys()):
            raise InputError(f"{self.where}: {len(missing)} encoder weights are missing, the first is {missing[0]}")
        try:
            model.load_state_dict(state)
        except RuntimeError as e:
            raise InputError(f"{self.where}: the weights do not fit ({' '.join(str(e).split())[:200]})") from e
        self.features = features.eval().to(device)
        self.model = place(model, device, self.options)
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        import torch

        if not waveforms:
            return []
        padded_BT, lengths = pad(waveforms)
        with torch.inference_mode():
            mel_BDT, mel_lengths = self.features(
                input_signal=to_device(padded_BT, self.device), length=to_device(lengths, self.device)
            )
            with autocast(self.device, self.spec.precision):
                states_BDN, frames = self.model(audio_signal=mel_BDT, length=mel_lengths)
        states_BND = to_host(states_BDN.transpose(1, 2))
        return [states_ND[:n] for states_ND, n in zip(states_BND, frames.tolist(), strict=True)]


def find_nemo(name: str, where: str) -> Path:
    """The one `.nemo` file of a path, a folder or a hub id."""
    if Path(name).is_file():
        return Path(name)
    if name.endswith(".nemo"):
        raise InputError(f"{where}: no such file")
    found = sorted(locate("nemo", name, ["*.nemo"]).glob("*.nemo"))
    if len(found) != 1:
        raise InputError(f"{where}: {len(found)} .nemo files there; expected one")
    return found[0]


@functools.lru_cache(maxsize=16)
def read_archive(path: Path, where: str, size: int, mtime_ns: int) -> tuple[str, str]:
    """model_config.yaml, and a digest of it and the weights as they lie in the tar."""
    try:
        with tarfile.open(path) as archive:
            digests, text = [], b""
            for member in members(archive, where):
                stream: Any = archive.extractfile(member)  # a plain file, as `members` has seen: not None
                h = xxhash.xxh3_128()
                while block := stream.read(1 << 23):
                    h.update(block)
                    text = text or block
                digests.append(h.hexdigest())
    except (tarfile.TarError, OSError, EOFError) as e:
        raise InputError(f"{where}: not a .nemo file, which is a tar ({' '.join(str(e).split())[:80]})") from e
    return text.decode(), "xxh3:" + xxhash.xxh3_128_hexdigest("".join(digests).encode())


def members(archive: tarfile.TarFile, where: str) -> list[tarfile.TarInfo]:
    """Configuration and weights; read in place, never unpacked."""
    plain = {m.name.removeprefix("./"): m for m in archive.getmembers() if m.isfile()}
    if missing := [name for name in MEMBERS if name not in plain]:
        raise InputError(f"{where}: no {' or '.join(missing)} in it; expected a .nemo file of a whole model")
    return [plain[name] for name in MEMBERS]


def parse_config(text: str, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the preprocessor and of the encoder; InputError where these are not of the known kind."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.to_container(OmegaConf.create(yaml.safe_load(text)), resolve=True)
        assert isinstance(config, dict), config
        preprocessor, encoder = ({**config[part]} for part in ("preprocessor", "encoder"))
        kinds = [str(part.pop("_target_", None)).rsplit(".", 1)[-1] for part in (preprocessor, encoder)]
        encoder["n_layers"], encoder["d_model"] = int(encoder["n_layers"]), int(encoder["d_model"])
    except (yaml.YAMLError, OmegaConfBaseException, KeyError, TypeError, ValueError, AssertionError) as e:
        raise InputError(f"{where}: model_config.yaml does not describe a (Fast)Conformer ({e!r})") from e
    if kinds != ["AudioToMelSpectrogramPreprocessor", "ConformerEncoder"]:
        raise InputError(f"{where}: made of {' and '.join(kinds)}; expected a (Fast)Conformer over mel features")
    if encoder.get("subsampling", "striding") not in SUBSAMPLING or encoder.get("reduction"):
        raise InputError(f"{where}: subsampling {encoder.get('subsampling')!r} or a reduction, whose times are unknown")
    if preprocessor.get("exact_pad") or preprocessor.get("frame_splicing", 1) != 1:
        raise InputError(f"{where}: exact_pad or frame_splicing, whose times are unknown")
    return preprocessor, encoder
