"""A tiny student with a thinking block, asked about tones of unequal length."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coat.analysis.interventions.packing import Prompt
from coat.trainer.config.sections import HeadsConfig, ThinkingConfig
from coat.trainer.generation.generate import Question, Trained
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.registry import load_student
from tests.trainer.helpers import RATE, toy_config, toy_sample

SECONDS = (1.0, 0.6, 1.3)
TURNS = (("What is it?", "a tone"), ("Is it loud?", "no, soft"))


@dataclass
class World:
    model: CoatModel
    trained: Trained
    questions: list[Question]

    @classmethod
    def of(cls, folder: Path, turns: Any = (), sounds: list[np.ndarray] | None = None, **thinking: Any) -> "World":
        """`thinking`: of the block; four positions where nothing is said."""
        config = toy_config(folder, Path("-"), Path("-"), thinking={"count": 4, **thinking})
        student = load_student(str(folder))
        block = ThinkingBlock.add_to(student, ThinkingConfig(**{"count": 4, **thinking}))
        heads = DistillHeads(HeadsConfig(), student.hidden_size, {})
        model = CoatModel(student, block, heads).eval()
        sounds = sounds or [toy_sample(i, s)["audio"] for i, s in enumerate(SECONDS)]
        asked = [Question((s, RATE), "High or low?" + "?" * i, (), turns) for i, s in enumerate(sounds)]
        return cls(model, Trained(student, block, config), asked)

    def prompts(self, *answers: str) -> list[Prompt]:
        """The same answers of each."""
        ids = tuple(tuple(self.model.student.chat.response_ids(answer)) for answer in answers)
        return [Prompt(*self.trained.encode(self.clips(q), q), ids) for q in self.questions]

    def clips(self, question: Question) -> Any:
        from coat.trainer.generation.generate import read_clips

        return read_clips(question.audio)

    @torch.no_grad()
    def log_probs_alone(self, prompt: Prompt) -> list[float]:
        """Of each answer in a row of its own, by transformers' own pass, without mask, padding or positions of ours."""
        found = []
        for answer in prompt.answers:
            ids = torch.tensor([[*prompt.ids, *answer]])
            logits = self.model.student.model(input_ids=ids, attention_mask=torch.ones_like(ids), **prompt.features)
            logits_TV = logits.logits[0].float()
            logits_TV[:, self.model.block.new_ids] = -torch.inf
            start = len(prompt.ids)
            said = logits_TV.log_softmax(-1)[start - 1 : -1].gather(1, torch.tensor(answer)[:, None])
            found.append(float(said.sum()))
        return found
