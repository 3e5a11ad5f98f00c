"""A student made by hand, whose answer depends on the block by a known map: what interventions must find is known.

    layer 0   each think position takes on the level of the audio that it attends to: +1 of a high tone, -1 of a low one
    layer 1   all that stands behind takes on the mean level of the think positions *of the first expert* it attends to
    answer    "a" where that is above 0, else "b"; then the end

States have a channel each for: what is an audio, what a think position; the level of the audio; of the block; of the
answer; whether an answer was said. A state of zeros is none of these. B rows, T positions, D channels.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from coat.trainer.config.sections import HeadsConfig, ThinkingConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.registry import load_student
from tests.trainer.helpers import SPECS, toy_sample

HIGH, LOW = "a", "b"  # one token each
IS_AUDIO, IS_READ, LEVEL, HEARD, ANSWER, SAID, CHANNELS = range(7)


class Gather(nn.Module):
    """Behind it, `to` of all positions that attend to some with `marker` is the mean of their `of`."""

    def __init__(self, marker: int, of: int, to: int) -> None:
        super().__init__()
        self.marker, self.of, self.to_ = marker, of, to

    def forward(self, states_BTD: Tensor, attention_mask: Tensor) -> Tensor:
        seen_BTT = attention_mask[:, 0] & (states_BTD[:, None, :, self.marker] > 0.5)
        count_BT = seen_BTT.sum(-1).clamp(min=1)
        mean_BT = (seen_BTT * states_BTD[:, None, :, self.of]).sum(-1) / count_BT
        made_BTD = states_BTD.clone()
        made_BTD[..., self.to_] = mean_BT
        return made_BTD


class KnownNetwork(nn.Module):
    """What stands for transformers' model: tokens and features to last states."""

    def __init__(self, audio_id: int, read_ids: list[int], said_ids: list[int]) -> None:
        super().__init__()
        self.audio_id, self.read_ids, self.said_ids = audio_id, torch.tensor(read_ids), torch.tensor(said_ids)
        self.language_model = nn.Module()
        self.language_model.layers = nn.ModuleList([Gather(IS_AUDIO, LEVEL, HEARD), Gather(IS_READ, HEARD, ANSWER)])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, input_features: Tensor, **_: Any) -> Any:
        states_BTD = torch.zeros(*input_ids.shape, CHANNELS)
        states_BTD[..., IS_AUDIO] = (input_ids == self.audio_id).float()
        states_BTD[..., IS_READ] = torch.isin(input_ids, self.read_ids).float()
        states_BTD[..., SAID] = torch.isin(input_ids, self.said_ids).float()
        loudest_B = input_features.sum(-1).argmax(-1)  # mel bin
        level_B = torch.where(loudest_B > input_features.shape[1] / 4, 1.0, -1.0)
        states_BTD[..., LEVEL] = states_BTD[..., IS_AUDIO] * level_B[:, None]
        for layer in self.language_model.layers:  # type: ignore[union-attr]
            states_BTD = layer(states_BTD, attention_mask=attention_mask)
        return SimpleNamespace(last_hidden_state=states_BTD)


def known_model(folder: Path, think: int = 4) -> CoatModel:
    """In the shell of a tiny Qwen2-Audio: its tokens, template, features. Pitch and mel share the block out."""
    student = load_student(str(folder))
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=think))
    index = {name: expert_info(name) for name in ("pitch", "mel")}
    heads = DistillHeads(HeadsConfig(dim=16, layers=1, heads=2, positions="own"), CHANNELS, index)
    ids = {word: student.chat.response_ids(word) for word in (HIGH, LOW)}
    assert all(len(one) == 2 for one in ids.values())  # the word and the end
    audio_id = student.tokenizer.convert_tokens_to_ids(student.audio_token)
    network = KnownNetwork(audio_id, list(block.ids_K[::2]), [one[0] for one in ids.values()])
    output = nn.Linear(CHANNELS, len(student.tokenizer), bias=True)
    with torch.no_grad():
        output.weight.zero_()
        output.bias.zero_()
        output.weight[ids[HIGH][0], ANSWER], output.weight[ids[LOW][0], ANSWER] = 10.0, -10.0
        output.bias[ids[LOW][0]] = 1.0  # said of silence
        output.weight[ids[LOW][1], SAID] = 100.0
    student.model.model = network
    student.model.get_output_embeddings = lambda: output
    return CoatModel(student, block, heads).eval()


def expert_info(name: str) -> Any:
    from coat.manifests import ExpertInfo

    dim = SPECS[name].dim
    return ExpertInfo(spec=SPECS[name], samples=1, frames=1, mean=(0.0,) * dim, std=(1.0,) * dim)


def tone(i: int, is_high: bool, seconds: float = 1.0, **meta: Any) -> dict[str, Any]:
    """A sample of a high or low tone, with the answer that the student gives by its map."""
    sample = toy_sample(0 if is_high else 1, seconds)  # 800 or 200 Hz
    answer = HIGH if is_high else LOW
    return {
        **sample,
        "key": f"s{i:03d}",
        "meta": {**sample["meta"], "choices": [HIGH, LOW], "response": answer, **meta},
    }
