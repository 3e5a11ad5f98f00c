"""Tiny random checkpoints in the students' true formats: for tests and the quickstart, fully offline."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from coat.manifests import InputError, RunError, Utterance
from coat.trainer.tiny_students.audio_flamingo3 import audio_flamingo3
from coat.trainer.tiny_students.qwen2_audio import qwen2_audio
from coat.trainer.tiny_students.qwen_omni import qwen2_5_omni, qwen3_omni
from coat.trainer.tiny_students.sizes import EMBEDDINGS_STD, Sizes


def make_tiny_student(out: str | Path, *, name: str = "qwen2-audio", seed: int = 0, **sizes: Any) -> Path:
    """Write a random student of these Sizes; equal arguments give equal weights.

    InputError: unknown name, bad sizes, or `out` holds something already. RunError: it cannot be written.
    """
    folder = Path(out)
    if name not in BUILDERS:
        raise InputError(f"tiny student {name!r} is not one of {', '.join(BUILDERS)}")
    size = Sizes(**sizes)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; choose another")
    import torch

    with torch.random.fork_rng(devices=[]):  # the caller's random state is its own
        torch.manual_seed(seed)
        model, processor = BUILDERS[name](size)
    if size.weights_std != EMBEDDINGS_STD:
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(EMBEDDINGS_STD / size.weights_std)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    partial = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
    try:
        partial.mkdir(parents=True)
        model.eval().save_pretrained(partial)
        processor.save_pretrained(partial)
        os.replace(partial, folder)  # onto an empty folder, or nothing
    except OSError as e:
        raise RunError(f"{folder}: cannot be written ({e.strerror or e}); see to that, and run again") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def texts_of(rows: Iterable[Utterance]) -> tuple[str, ...]:
    """All text that a student may read or say of these rows: what its tokenizer's words are taken from."""
    texts = (t for u in rows for t in (u.text, u.prompt, u.response, *(text for turn in u.turns for text in turn)))
    return tuple(text for text in texts if text)


BUILDERS: Mapping[str, Callable[[Sizes], tuple[Any, Any]]] = {
    "qwen2-audio": qwen2_audio,
    "audio-flamingo-3": audio_flamingo3,
    "qwen2.5-omni": qwen2_5_omni,
    "qwen3-omni": qwen3_omni,
}
