"""Tensors and models of an opened checkpoint, through safetensors and transformers."""

import contextlib
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from coat.extractors.checkpoints.checkpoint import Checkpoint
from coat.manifests.errors import InputError, one_line

if TYPE_CHECKING:
    import torch


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


def load_partial(where: str, cls: Any, config: Any, state: dict[str, "torch.Tensor"]) -> Any:
    """A transformers model of these tensors, float32; InputError where some are missing or do not fit."""
    with quiet_transformers():
        try:
            model, report = cls.from_pretrained(
                None, config=config, state_dict=state, output_loading_info=True, dtype="float32"
            )
        except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as e:
            reason = one_line(e, 200)
            raise InputError(f"{where}: the weights cannot be loaded ({reason})") from e
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{where}: {len(missing)} weights are missing, the first is {missing[0]}")
    return model
