"""`.nemo` files in tests: what NeMo itself makes of clips with them, and copies with one thing changed."""

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
from coat.extractors.nemo_encoder import NemoEncoder
from coat.manifests import InputError
from tests.extractors.conformance.conformance import noise

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
        model_input = signals(x)
        if "noisy_input_signal" in (model.input_types or ()):
            model_input |= {f"noisy_{key}": value for key, value in model_input.items()}
        with torch.inference_mode():
            returned.append(model.forward(**model_input))
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
