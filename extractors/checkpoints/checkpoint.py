"""Checkpoints: from a hub id or a folder to local files, their configuration and their digest.

Nothing here unpickles or runs code of a checkpoint. Configurations are JSON; weights are digested as
bytes, and loaded by transformers with `trust_remote_code=False` and `weights_only=True`.
"""

import contextlib
import functools
import importlib.util
import json
import pickle
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from coat.manifests.errors import InputError, one_line

if TYPE_CHECKING:
    import torch

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")
SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
TORCH_BIN = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """Local files of one checkpoint; `where` is what errors call it."""

    where: str  # --expert NAME: CHECKPOINT
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """Of the weights and the configurations, by name and content; the folder does not count."""
        configs = [self.folder / name for name in CONFIGS]
        return digest_files([*self.weights, *(path for path in configs if path.is_file())])

    def features(self) -> dict[str, Any]:
        return read_features(self.folder, self.where)

    def get(self, key: str, kind: type = int) -> Any:
        """A value of config.json; InputError where it is absent or of another type."""
        value = self.config.get(key)
        if not isinstance(value, kind):
            raise InputError(f"{self.where}: config.json has {key} = {value!r}; expected {kind.__name__}")
        return value


def open_checkpoint(expert: str, name: str, model_types: Iterable[str], beside: Sequence[str] = ()) -> Checkpoint:
    """The files of a transformers checkpoint, downloaded if need be, with those named in `beside` where it has them.

    InputError says what is wrong with it.
    """
    where = f"--expert {expert}: {name}"
    folder = checkpoint_folder(expert, name, [*CONFIGS, *SAFETENSORS, *beside])
    config = read_config(folder, where, model_types)
    read_features(folder, where)
    weights = matching_files(folder, SAFETENSORS)
    if not weights:
        weights = matching_files(checkpoint_folder(expert, name, [*CONFIGS, *TORCH_BIN]), TORCH_BIN)
    if not weights:
        raise InputError(f"{where}: no weights; expected model.safetensors or pytorch_model.bin")
    check_finite(weights, where)
    return Checkpoint(where, folder, config, weights)


def checkpoint_folder(expert: str, name: str, patterns: Sequence[str]) -> Path:
    """A folder with the files of a checkpoint: itself, or a snapshot of the hub's that match `patterns`."""
    where = f"--expert {expert}: {name}"
    if Path(name).is_dir():
        return Path(name)
    match = HUB_ID.fullmatch(name)
    if match is None:
        raise InputError(f"{where}: no such folder, and not a hub id (org/name or org/name@revision)")
    from httpx2 import HTTPError  # of huggingface_hub's client; its own HfHubHTTPError is one
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(match["repo"], revision=match["revision"], allow_patterns=list(patterns)))
    except (HTTPError, HFValidationError, OSError) as e:
        reason = one_line(e, 160)
        raise InputError(
            f"{where}: no such folder, and the hub does not give it ({type(e).__name__}: {reason}); "
            "check the id and the network, log in for gated models, or give a folder"
        ) from e


def package_folder(module: str) -> Path:
    """Where an installed package keeps its files, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module  # the registry has checked the card's `requires`
    assert spec.submodule_search_locations, module
    return Path(spec.submodule_search_locations[0])


def matching_files(folder: Path, patterns: Iterable[str]) -> tuple[Path, ...]:
    return tuple(sorted(path for pattern in patterns for path in folder.glob(pattern)))


def read_config(folder: Path, where: str, model_types: Iterable[str]) -> dict[str, Any]:
    config, known = read_json_object(folder / "config.json", where), sorted(model_types)
    if config.get("model_type") not in known:
        raise InputError(f"{where}: model_type is {config.get('model_type')!r}; expected one of {', '.join(known)}")
    return config


def read_features(folder: Path, where: str) -> dict[str, Any]:
    """The feature extractor's configuration: where transformers 5 looks first, then where 4 wrote it."""
    nested = folder / "processor_config.json"
    if nested.is_file() and isinstance(found := read_json_object(nested, where).get("feature_extractor"), dict):
        return found
    return read_json_object(folder / "preprocessor_config.json", where)


def read_json_object(path: Path, where: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as e:
        raise InputError(f"{where}: no {path.name}; expected a folder as save_pretrained writes it") from e
    except (ValueError, OSError) as e:
        raise InputError(f"{where}: {path.name} cannot be read as JSON ({e})") from e
    if not isinstance(value, dict):
        raise InputError(f"{where}: {path.name} holds no JSON object")
    return value


def digest_files(paths: Iterable[Path]) -> str:
    """`xxh3:<32 hex digits>` of files by name and content, whatever their order."""
    parts = sorted((path.name, file_digest(path, path.stat().st_size, path.stat().st_mtime_ns)) for path in paths)
    return "xxh3:" + xxhash.xxh3_128_hexdigest(json.dumps(parts).encode())


@functools.lru_cache(maxsize=256)  # one process makes an expert more than once; size and mtime tell a rewritten file
def file_digest(path: Path, size: int, mtime_ns: int) -> str:
    h = xxhash.xxh3_128()
    with path.open("rb") as f:
        while block := f.read(1 << 23):
            h.update(block)
    return h.hexdigest()


def check_finite(weights: Iterable[Path], where: str) -> None:
    """InputError where a weight is NaN or infinite: every frame would be, and each row would fail of it."""
    for path in weights:
        if path.suffix in (".safetensors", ".bin") and (
            bad := not_finite(path, path.stat().st_size, path.stat().st_mtime_ns)
        ):
            raise InputError(f"{where}: {path.name} holds NaN or infinite values in {bad}; get the checkpoint anew")


@functools.lru_cache(maxsize=256)
def not_finite(path: Path, size: int, mtime_ns: int) -> str | None:
    """The first tensor of a file that is not finite. What cannot be read at all is found when it is loaded."""
    import torch
    from safetensors import SafetensorError, safe_open

    def bad(tensor: torch.Tensor) -> bool:
        return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP threads of this thread would stay, and slow those of the model's down
    try:
        if path.suffix == ".bin":
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return next((key for key, value in state.items() if torch.is_tensor(value) and bad(value)), None)
        with safe_open(path, framework="pt", device="cpu") as found:
            return next((key for key in found.keys() if bad(found.get_tensor(key))), None)  # noqa: SIM118
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError):
        return None
    finally:
        torch.set_num_threads(threads)


def build_config(where: str, cls: Any, values: dict[str, Any]) -> Any:
    """The configuration that transformers makes of values, defaults and all; InputError where it refuses them."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return cls.from_dict(values)
    except (StrictDataclassError, TypeError, ValueError, AttributeError, KeyError) as e:
        reason = one_line(e, 200)
        raise InputError(f"{where}: config.json does not describe a {cls.model_type} ({reason})") from e


def layer_number(where: str, layer: str | None, layers: int, also: str = "") -> int | None:
    """The layer to stop after, 1 to `layers`; None for the model's own last hidden state. Errors name `also`, too."""
    if layer in (None, "last"):
        return None
    if not re.fullmatch(r"[0-9]+", layer) or not 1 <= int(layer) <= layers:
        raise InputError(f"{where}: --layer {layer}: expected 1 to {layers}, or last{also}")
    return int(layer)


def find_tensor(checkpoint: Checkpoint, key: str) -> "torch.Tensor | None":
    """One of its weights by name, or None where it has none of that name."""
    import torch
    from safetensors import SafetensorError, safe_open

    for path in checkpoint.weights:
        try:
            if path.suffix == ".bin":
                state = torch.load(path, map_location="cpu", weights_only=True)
                if key in state:
                    return state[key]
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt", device="cpu") as found:
                    if key in found.keys():  # noqa: SIM118
                        return found.get_tensor(key)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as e:
            raise InputError(f"{checkpoint.where}: {path.name} cannot be read ({one_line(e, 200)})") from e
    return None


def load_pretrained(checkpoint: Checkpoint, cls: Any, **options: Any) -> Any:
    """`cls.from_pretrained` on local files, float32; InputError where weights are missing.

    Weights that the class has no place for (a decoder, a classifier) are left on disk without a word.
    """
    from safetensors import SafetensorError

    with quiet_transformers():
        try:
            model, report = cls.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                use_safetensors=checkpoint.weights[0].suffix != ".bin",
                output_loading_info=True,
                dtype="float32",
                **options,
            )
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError) as e:
            reason = one_line(e, 200)
            raise InputError(f"{checkpoint.where}: the weights cannot be loaded ({reason})") from e
    # masked_spec_embed is used in training alone, and not every checkpoint has it.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))
    if missing:
        raise InputError(f"{checkpoint.where}: {len(missing)} weights are missing, the first is {missing[0]}")
    return model


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bars, and its report of every weight that is meant to be left out."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
