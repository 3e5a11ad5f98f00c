"""Seeded tiny random models of NeMo's own classes, as `.nemo` files that NeMo saved. Importing NeMo: ten seconds."""

import io
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coat.extractors import Expert, Frames, Options, Waveform, create
from coat.extractors.nemo_encoder import NemoEncoder, import_nemo
from coat.manifests import InputError
from tests.extractors.conformance.conformance import noise

MODULES = "nemo.collections.asr.modules."
TEXT = "the quick brown fox jumps over a lazy dog while five wizards box with a sphinx of black quartz"
Config = dict[str, Any]


def preprocessor(**other: Any) -> Config:
    return {
        "_target_": MODULES + "AudioToMelSpectrogramPreprocessor", "sample_rate": 16000, "features": 20,
        "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "n_fft": 512, "dither": 1e-5, **other,
    }  # fmt: skip


def conformer(normalize: str = "per_feature", **other: Any) -> Config:
    """FastConformer: d 32, 3 layers, 8 mel frames a frame."""
    encoder = {
        "_target_": MODULES + "ConformerEncoder", "feat_in": 20, "n_layers": 3, "d_model": 32,
        "subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 16, "n_heads": 4,
        "conv_kernel_size": 9, "ff_expansion_factor": 2, **other,
    }  # fmt: skip
    return {"sample_rate": 16000, "preprocessor": preprocessor(normalize=normalize), "encoder": encoder}


def block(filters: int, kernel: int, repeat: int = 1, stride: int = 1, dilation: int = 1, **other: Any) -> Config:
    return {
        "filters": filters, "kernel": [kernel], "repeat": repeat, "stride": [stride], "dilation": [dilation],
        "dropout": 0.1, "residual": repeat > 1, "separable": True, **other,
    }  # fmt: skip


def convolutional(*blocks: Config, normalize: str = "per_feature", **other: Any) -> Config:
    encoder = {
        "_target_": MODULES + "ConvASREncoder", "feat_in": 20, "activation": "relu", "conv_mask": True,
        "jasper": list(blocks), **other,
    }  # fmt: skip
    return {"sample_rate": 16000, "preprocessor": preprocessor(normalize=normalize), "encoder": encoder}


LETTERS = [*"abcdefghijklmnopqrstuvwxyz", " "]


def ctc_decoder() -> Config:
    return {"_target_": MODULES + "ConvASRDecoder", "feat_in": 32, "num_classes": 27, "vocabulary": LETTERS}


def ctc(folder: Path, **encoder: Any) -> Any:
    from nemo.collections.asr.models import EncDecCTCModel

    return EncDecCTCModel(cfg=make({**conformer(**encoder), "decoder": ctc_decoder()}))


def quartznet(folder: Path, normalize: str = "per_feature") -> Any:
    """Strides 2 and, in the last of two repetitions alone, 2: 4 mel frames a frame; even and dilated kernels."""
    from nemo.collections.asr.models import EncDecCTCModel

    blocks = block(16, 11, stride=2), block(24, 5, 2, 2, stride_last=True, residual_mode="stride_add")
    blocks = *blocks, block(32, 6, dilation=2, kernel_size_factor=1.4), block(32, 1, separable=False)
    return EncDecCTCModel(cfg=make({**convolutional(*blocks, normalize=normalize), "decoder": ctc_decoder()}))


def citrinet(folder: Path) -> Any:
    encoder = convolutional(block(16, 5, stride=2, se=True), block(32, 3, 2))
    decoder = {**ctc_decoder(), "num_classes": -1, "vocabulary": []}
    return with_pieces(folder, "EncDecCTCModelBPE", {**encoder, "decoder": decoder})


def transducer(durations: int = 0) -> Config:
    """What RNNT has beside an encoder; TDT where it predicts durations."""
    tdt = {"model_type": "tdt", "durations": list(range(durations))} if durations else {}
    loss = {"loss_name": "tdt", "tdt_kwargs": {"durations": list(range(durations))}} if durations else {}
    return {
        **conformer(),
        "model_defaults": {"enc_hidden": 32, "pred_hidden": 8, "joint_hidden": 8},
        "decoder": {
            "_target_": MODULES + "RNNTDecoder", "normalization_mode": None, "random_state_sampling": False,
            "blank_as_pad": True, "prednet": {"pred_hidden": 8, "pred_rnn_layers": 1, "dropout": 0.0},
        },
        "joint": {
            "_target_": MODULES + "RNNTJoint", "log_softmax": None, "preserve_memory": False, "fuse_loss_wer": False,
            "num_extra_outputs": durations, "jointnet": {"joint_hidden": 8, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}, **tdt},
        "loss": loss or {"loss_name": "default"},
    }  # fmt: skip


def rnnt(folder: Path) -> Any:
    return with_pieces(folder, "EncDecRNNTBPEModel", transducer())


def tdt(folder: Path) -> Any:
    return with_pieces(folder, "EncDecRNNTBPEModel", transducer(durations=5))


def hybrid(folder: Path) -> Any:
    """As parakeet-tdt_ctc: TDT with a CTC branch."""
    branch = {"decoder": {**ctc_decoder(), "num_classes": -1, "vocabulary": []}, "decoding": {"strategy": "greedy"}}
    return with_pieces(folder, "EncDecHybridRNNTCTCBPEModel", {**transducer(durations=5), "aux_ctc": branch})


def canary(folder: Path) -> Any:
    from nemo.collections.asr.models import EncDecMultiTaskModel
    from nemo.collections.common.tokenizers.canary_tokenizer import CanaryTokenizer

    special = folder / "special"
    special.mkdir(parents=True)
    CanaryTokenizer.build_special_tokenizer(["translate", "transcribe", "en", "de"], str(special))
    decoder = {
        "max_sequence_length": 64, "num_token_types": 0, "hidden_size": 32, "inner_size": 64, "num_layers": 1,
        "num_attention_heads": 4, "hidden_act": "relu", "pre_ln": True, "vocab_size": None,
    }  # fmt: skip
    folders = {"spl_tokens": special, "en": pieces(folder)}
    languages = {name: {"dir": str(path), "type": "bpe"} for name, path in folders.items()}
    return EncDecMultiTaskModel(cfg=make({
        **conformer(),
        "prompt_format": "canary",
        "restore_timestamps_model": False,  # from the archive that this process has read last
        "model_defaults": {"asr_enc_hidden": 32, "lm_enc_hidden": 32, "lm_dec_hidden": 32},
        "tokenizer": {
            "dir": None, "type": "agg", "langs": languages,
            "custom_tokenizer": {
                "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer", "tokenizers": None,
            },
        },
        "transf_decoder": {
            "_target_": MODULES + "transformer.get_nemo_transformer", "model_name": None, "pretrained": False,
            "encoder": None, "pre_ln_final_layer_norm": True, "config_dict": decoder,
        },
        "head": {
            "_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier", "num_layers": 1,
            "hidden_size": 32, "num_classes": None, "log_softmax": True,
        },
        "decoding": {"strategy": "beam", "beam": {"beam_size": 1}},
        "loss": {"_target_": "nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss"},
    }))  # fmt: skip


def nest(folder: Path, mask_position: str = "pre_conv") -> Any:
    """NEST: masked token prediction on noisy speech; where it masks after the convolutions, on clean speech.

    (There NeMo 3.0 gives its subsampling the noisy model's mel frames untransposed, and fails.)
    """
    from nemo.collections.asr.models import ssl_models

    noisy = mask_position == "pre_conv"
    model = ssl_models.EncDecDenoiseMaskedTokenPredModel if noisy else ssl_models.EncDecMaskedTokenPredModel
    width = 20 if noisy else 32
    return model(cfg=make({
        **conformer(),
        "mask_position": mask_position,
        "spec_augment": {"_target_": MODULES + "SpectrogramAugmentation", "freq_masks": 0, "time_masks": 0},
        "num_classes": 16, "num_books": 1, "squeeze_single": False,
        "masking": {
            "_target_": MODULES + "RandomBlockMasking", "block_size": 40, "mask_prob": 0.01, "feat_in": width,
            "freeze": True, "allow_overlap": True,
        },
        "quantizer": {
            "_target_": MODULES + "RandomProjectionVectorQuantizer", "feat_in": width, "code_dim": 4, "num_books": 1,
            "num_classes": 16, "dist_fn": "l2", "freeze": True, "squeeze_single": False,
            "combine_time_steps": 8 if noisy else 1,
        },
        "decoder": {
            "_target_": MODULES + "MultiSoftmaxDecoder", "feat_in": 32, "num_classes": 16, "num_decoders": 1,
            "squeeze_single": False, "use_bias": True,
        },
        "loss": {
            "_target_": "nemo.collections.asr.losses.MultiMLMLoss", "combine_time_steps": 8, "mask_threshold": 0.8,
            "num_decoders": 1, "squeeze_single": False,
        },
    }))  # fmt: skip


def titanet(folder: Path, **encoder: Any) -> Any:
    """As titanet-large, narrower: five blocks with squeeze-and-excitation."""
    from nemo.collections.asr.models import EncDecSpeakerLabelModel

    blocks = block(24, 3, se=True), *(block(24, kernel, 3, se=True) for kernel in (7, 11, 15)), block(40, 1, se=True)
    return EncDecSpeakerLabelModel(cfg=make({
        **convolutional(*blocks, **encoder),
        "decoder": {
            "_target_": MODULES + "SpeakerDecoder", "feat_in": 40, "num_classes": 5, "pool_mode": "attention",
            "emb_sizes": 8,
        },
    }))  # fmt: skip


def marblenet(folder: Path, normalize: str = "None", labels: tuple[str, ...] = ("0", "1")) -> Any:
    """As marblenet_3x2x64_20ms, narrower, and with shorter kernels, whose field lies well inside a clip of 2 s."""
    from nemo.collections.asr.models import EncDecFrameClassificationModel

    blocks = block(16, 11, stride=2), block(12, 3, 2), block(12, 5, 2), block(12, 7, 2), block(16, 9, dilation=2)
    return EncDecFrameClassificationModel(cfg=make({
        **convolutional(*blocks, block(16, 1, separable=False), normalize=normalize),
        "labels": list(labels),
        "decoder": {
            "_target_": "nemo.collections.common.parts.MultiLayerPerceptron", "hidden_size": 16, "num_classes": -1,
            "num_layers": 2, "activation": "relu", "log_softmax": False,
        },
    }))  # fmt: skip


def make(config: Config) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create(config)


def pieces(folder: Path) -> Path:
    """A folder with a sentencepiece tokenizer of 40 pieces."""
    import sentencepiece

    folder = folder / "pieces"
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT]), model_prefix=str(folder / "tokenizer"), vocab_size=40, model_type="bpe",
        minloglevel=2,
    )  # fmt: skip
    lines = (folder / "tokenizer.vocab").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(line.split("\t")[0].replace("\u2581", "##") for line in lines))
    return folder


def with_pieces(folder: Path, model: str, config: Config) -> Any:
    from nemo.collections.asr import models

    return getattr(models, model)(cfg=make({**config, "tokenizer": {"dir": str(pieces(folder)), "type": "bpe"}}))


def liven(module: Any) -> None:
    """Norms as if they had seen audio; kernels over time that are even and highest in their middle.

    Random ones would show an event where their own centres of weight are, anywhere in what a stack of them hears.
    """
    if isinstance(module, torch.nn.BatchNorm1d):
        for tensor in (module.running_mean, module.bias):
            torch.nn.init.normal_(tensor, std=0.2)  # pyright: ignore[reportArgumentType]
        for tensor in (module.running_var, module.weight):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
    if type(module).__name__ == "MaskedConv1d":
        conv: torch.nn.Conv1d = module.conv  # pyright: ignore[reportAssignmentType]
        kernel = torch.hann_window(conv.kernel_size[0] + 2, periodic=False)[1:-1]
        conv.weight.data = conv.weight.data.sum(dim=-1, keepdim=True) * kernel / kernel.sum()


def save(path: Path, build: Callable[..., Any], seed: int = 0, **options: Any) -> Path:
    """The model of a builder as a `.nemo` file."""
    import_nemo()
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = build(path.parent / f"{path.stem}_parts", **options)
    for module in model.modules():
        liven(module)
    model.save_to(str(path))
    return path


CLIPS = [noise(seconds, 16000, seed=i) for i, seconds in enumerate((1.0, 2.503, 0.333, 0.04, 1.77))]


def signals(x: Waveform) -> dict[str, torch.Tensor]:
    return {"input_signal": torch.tensor(np.array(x))[None], "input_signal_length": torch.tensor([len(x)])}


def restored(path: Path) -> Any:
    """NeMo's own model of a file."""
    from nemo.core import ModelPT

    model: Any = ModelPT.restore_from(str(path))
    return model.cpu().eval()


def reference(path: Path) -> list[tuple[Frames, Any]]:
    """What the encoder gives inside NeMo's own `forward` of the restored model, and what that returns, clip by clip.

    Nothing of the model is changed: its preprocessor pads to 16 mel frames.
    """
    model = restored(path)
    states: list[Frames] = []

    def keep(_module: object, _inputs: object, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        states_BDN, lengths = output
        states.append(states_BDN[0, :, : int(lengths[0])].T.numpy())

    model.encoder.register_forward_hook(keep)
    returned = []
    for x in CLIPS:
        given = signals(x)
        if "noisy_input_signal" in (model.input_types or ()):
            given |= {f"noisy_{key}": value for key, value in given.items()}
        with torch.inference_mode():
            returned.append(model.forward(**given))
    return list(zip(states, returned, strict=True))


def encoder_of(expert: Expert) -> NemoEncoder:
    found = getattr(expert, "encoder", None)
    assert isinstance(found, NemoEncoder)
    return found


def contents(path: Path) -> dict[str, bytes]:
    """The files of an archive by name."""
    with tarfile.open(path) as archive:
        files = {m.name.removeprefix("./"): archive.extractfile(m) for m in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file}


def write(path: Path, files: Mapping[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def edited(path: Path, copy: Path, old: str, new: str) -> Path:
    """A copy of a `.nemo` file with another text in its configuration."""
    files = contents(path)
    text = files["model_config.yaml"].decode()
    assert old in text, text
    return write(copy, {**files, "model_config.yaml": text.replace(old, new).encode()})


def reweighted(path: Path, copy: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy with its weights changed."""
    files, stream = contents(path), io.BytesIO()
    weights = torch.load(io.BytesIO(files["model_weights.ckpt"]), weights_only=True)
    change(weights)
    torch.save(weights, stream)
    return write(copy, {**files, "model_weights.ckpt": stream.getvalue()})


def assert_faults_are_found(expert: str, path: Path, folder: Path, names: Iterable[str]) -> None:
    """A weight that is missing, and one with a NaN, are found before anything is loaded."""
    for i, name in enumerate(names):
        without = reweighted(path, folder / f"without{i}.nemo", lambda weights, name=name: weights.pop(name))
        with pytest.raises(InputError, match=f"1 weights are missing, the first is {re.escape(name)}$"):
            create(expert, Options(checkpoint=str(without)))
        nan = reweighted(
            path, folder / f"nan{i}.nemo", lambda weights, name=name: weights[name].view(-1)[-1:].fill_(np.nan)
        )
        with pytest.raises(InputError, match=f"NaN or infinite values in {re.escape(name)}; get the checkpoint anew"):
            create(expert, Options(checkpoint=str(nan)))
