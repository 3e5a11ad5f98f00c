"""Were all weights of a checkpoint read, and which ones were they?

transformers fills what a file lacks with random numbers, drops what it does not know, and warns. A run on such a
student is worth nothing, so each such tensor is an error that names it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import nn

from coat.manifests import InputError

NAMED = 3  # tensors in a message


def check_all_read(source: str, info: Mapping[str, Any], not_read: Mapping[str, str]) -> None:
    """InputError where tensors are missing, unknown or of another shape.

    `info`: what `from_pretrained(output_loading_info=True)` gives. `not_read`: patterns of names of tensors that a
    student leaves out, each with the reason.
    """
    unknown = [name for name in info["unexpected_keys"] if not any(re.match(p, name) for p in not_read)]
    found = [
        ("are not in its files, and would be random", sorted(info["missing_keys"])),
        ("have another shape than config.json says", sorted(shapes(m) for m in info["mismatched_keys"])),
        ("are in its files, and are no part of this model", sorted(unknown)),
        ("cannot be converted", sorted(str(e) for e in info.get("conversion_errors") or ())),
    ]
    said = [f"{len(names)} tensors {what}: {listed(names)}" for what, names in found if names]
    if said:
        raise InputError(f"{source}: {'; '.join(said)}. Copy the checkpoint again, whole, with its own config.json")


def check_finite(source: str, model: nn.Module) -> None:
    """InputError where a weight is NaN or infinite: no loss would be finite, and a run would blame its samples.

    Not of buffers: some hold infinities on purpose. Some seconds for a 7B.
    """
    weights = ((name, p) for name, p in model.named_parameters() if p.is_floating_point())
    # The extremes pass on what is NaN, and are a tenth of the work of asking each number.
    wrong = [name for name, p in weights if p.numel() and not torch.isfinite(torch.stack(torch.aminmax(p))).all()]
    if wrong:
        raise InputError(
            f"{source}: {len(wrong)} tensors hold NaN or infinite values: {listed(wrong)}. Copy the checkpoint "
            "again, or look at how it was made"
        )


def shapes(mismatch: Sequence[Any]) -> str:
    name, in_file, expected = mismatch
    return f"{name} {list(in_file)} for {list(expected)}"


def listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f", and {more} more" if more > 0 else "")


def weights_digest(model: nn.Module) -> str:
    """32 hex digits of all tensors: names, types, shapes and bytes. Some seconds for a 7B."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
