"""Shards whose pitch is known, and a student whose block is a linear map of it."""

from pathlib import Path

import numpy as np
import torch

from coat.analysis.layers import decoder_layers
from coat.trainer.model.coat_model import CoatModel
from tests.trainer.helpers import toy_sample, write_shards

SPEAKERS = ("ann", "bo", "cy")


def known_pitch(number: int) -> float:
    """log2 of f0, of a sound; it has nothing to do with what is heard."""
    return float(np.random.default_rng([5, number]).uniform(6.5, 9.5))


def probed_samples(sounds: int = 24, asked_twice: int = 6) -> list[dict]:
    """Clips of one f0 each, with a speaker; some have a second question. The last has neither target nor label."""
    found = []
    for n in range(sounds + asked_twice):
        sound = n % sounds
        sample = toy_sample(sound, seconds=0.4 + 0.01 * sound)
        pitch = sample["targets"]["pitch"]
        pitch[:, 0], pitch[:, 1] = known_pitch(sound), 0.9
        extra = {"speaker": SPEAKERS[sound % 3], "age": 20 + sound}
        asked = "High or low?" if n < sounds else "What do you hear?"
        meta = {**sample["meta"], "prompt": asked, "extra": extra}
        found.append({**sample, "key": f"s{n:03d}", "meta": meta, "targets": {"pitch": pitch}})
    found[-1]["targets"], found[-1]["meta"]["extra"] = {}, {}
    return found


def probed_shards(folder: Path, **counts: int) -> Path:
    return write_shards(folder, probed_samples(**counts), per_shard=8)


class KnownBlock:
    """From layer 1 on the states of the block are `pitch * direction + offset`, whatever the student makes of them.

    It knows a sound by the features that the student is given.
    """

    def __init__(self, model: CoatModel) -> None:
        self.model = model
        self.of_features: dict[bytes, float] = {}
        generator = torch.Generator().manual_seed(1)
        dim = model.student.hidden_size
        self.direction_D, self.offset_D = torch.randn(2, dim, generator=generator)
        for sound in range(40):
            sample = toy_sample(sound, seconds=0.4 + 0.01 * sound)
            audio = np.round(sample["audio"] * 32768) / 32768  # as FLAC keeps it
            features = model.student.prefix(audio.astype(np.float32), "?").features
            self.of_features[self.key(features["input_features"][0])] = known_pitch(sound)
        self.inputs: dict = {}
        model.student.model.model.register_forward_pre_hook(self.look, with_kwargs=True)
        decoder_layers(model.student)[1].register_forward_pre_hook(self.put, with_kwargs=True)

    @staticmethod
    def key(features: torch.Tensor) -> bytes:
        return features.float().numpy().tobytes()

    def look(self, _module, args, kwargs) -> None:
        self.inputs = kwargs

    def put(self, _module, args, kwargs):
        states_BTD = args[0] if args else kwargs["hidden_states"]
        pitch_B = torch.tensor([self.of_features[self.key(one)] for one in self.inputs["input_features"]])
        block_BT = torch.isin(self.inputs["input_ids"], torch.tensor(self.model.block.ids_K))
        known_BD = pitch_B[:, None] * self.direction_D + self.offset_D
        states_BTD = torch.where(block_BT[..., None], known_BD[:, None], states_BTD)
        return ((states_BTD, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states_BTD})
