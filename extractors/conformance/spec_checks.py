"""What an expert says of itself: its spec, and that both spec and frames follow the weights."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from coat.extractors.checkpoints.checkpoint import Checkpoint
from coat.extractors.conformance.check import (
    BATCH_TOLERANCE,
    NotApplicable,
    require,
)
from coat.extractors.conformance.differences import relative_error
from coat.extractors.conformance.sounds import noise
from coat.extractors.expert import Expert
from coat.manifests.targets.spec import TargetSpec

SCALE = 1.25  # of all weights, to see whether an expert hears with the ones it was given


def the_spec_survives_json(expert: Expert) -> str:
    text = json.dumps(expert.spec.to_dict())
    again = TargetSpec.from_dict(json.loads(text))
    require(again.fingerprint == expert.spec.fingerprint, "its fingerprint changes on the way through JSON")
    require(again.to_dict() == json.loads(text), "values of its spec change on the way through JSON")
    return f"fingerprint {again.fingerprint}"


def the_spec_agrees_with_the_class(expert: Expert) -> str:
    spec, card = expert.spec, expert.card
    require(spec.expert == expert.name, f"the class is called {expert.name!r}, the spec's expert {spec.expert!r}")
    for name in ("family", "kind", "dim", "rate_hz"):
        stated, found = getattr(card, name), getattr(spec, name)
        fixed = name in ("family", "kind") or card.checkpoint in ("none", "built-in")  # whatever the checkpoint
        if fixed and stated is not None:
            require(stated == found, f"the card has {name} {stated!r}, the spec {found!r}")
    require(expert.options.dtype == spec.dtype, f"--dtype {expert.options.dtype} is not in the spec")
    return f"{spec.family}, {spec.kind}, {spec.dim} x {spec.rate_hz:.6g} Hz from {spec.start_s:.6g} s"


def windows_are_in_the_spec(expert: Expert) -> str:
    found = tuple(expert.spec.settings.get(name) for name in ("window_s", "context_s"))
    own = (expert.window_s, expert.context_s)
    require(found == own, f"window_s and context_s are {own}, in the spec {found}; make the spec with `describe`")
    return f"windows of {own[0]:g} s, {own[1]:g} s of context"


def other_weights_give_other_targets(expert: Expert) -> str:
    """A copy of its checkpoint with every weight scaled: both the fingerprint and the frames must follow."""
    files = getattr(expert, "files", None)
    if not isinstance(files, Checkpoint) or any(path.suffix != ".safetensors" for path in files.weights):
        raise NotApplicable("no folder of safetensors")
    from safetensors.torch import load_file, save_file

    x = noise(1.0, expert.spec.sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        for path in files.folder.iterdir():
            if path.is_file() and path not in files.weights:
                shutil.copy(path, folder)
        for path in files.weights:
            tensors = {k: v * SCALE if v.is_floating_point() else v for k, v in load_file(path).items()}
            save_file(tensors, Path(folder) / path.name, metadata={"format": "pt"})
        other = type(expert)(replace(expert.options, checkpoint=folder))
        require(other.spec.fingerprint != expert.spec.fingerprint, "the fingerprint does not change with the weights")
        other.load("cpu")
        (a,), (b,) = expert.extract([x]), other.extract([x])
    error = relative_error(a, b)
    require(error > BATCH_TOLERANCE, "the frames do not change with the weights: are they loaded at all?")
    return f"another fingerprint, frames that differ by {error:.1e}"
