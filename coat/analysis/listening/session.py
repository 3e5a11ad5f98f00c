"""A run that is asked what it heard, clip by clip.

    session = ListeningSession.load("runs/a")
    listened = session.listen(Sound(decode("clip.wav"), "clip.wav"), ["What is it?"])
    storage.write_bytes("clip.html", listening_page(listened))

K positions of the block, N frames or tokens, D dim.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coat.analysis.listening.asked import AUDIO, QUESTION, Asked, ask
from coat.analysis.listening.effects import MeanStates, effects, mean_states
from coat.analysis.listening.head_values import head_values
from coat.analysis.listening.listened import Evidence, Listened, Token
from coat.analysis.listening.panels import HeardPanel, Target, heard_panel
from coat.analysis.listening.rollout import NoAttention, rollout
from coat.drawing.panels import Panel
from coat.drawing.sound import log_mel_panel, waveform_panel
from coat.manifests import Clip, ExpertInfo, InputError
from coat.trainer.generation.generate import MAX_NEW_TOKENS, Question, Trained
from coat.trainer.generation.run_student import find_student, load_model
from coat.trainer.model.batch import at_audio
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of
from coat.trainer.model.heads import DistillHeads
from coat.trainer.records.checkpoint_files import Step
from coat.trainer.run_folder import RunFolder
from coat.trainer.students.chat import Turns
from coat.trainer.students.unusable import UnusableInput


@dataclass(frozen=True)
class Sound:
    """A clip, what it is called, and what its experts' targets are, as the run's shards would have them."""

    clip: Clip
    name: str
    targets: Mapping[str, Target] = field(default_factory=dict)
    truth: str | None = None  # the answer of the manifest
    choices: tuple[str, ...] = ()
    turns: Turns = ()


@dataclass(frozen=True)
class ListeningSession:
    model: CoatModel
    trained: Trained
    experts: Mapping[str, ExpertInfo]  # those that heads were trained for
    run: str
    last_mean: dict[Any, MeanStates | None] = field(default_factory=dict, repr=False)  # of the last question

    @classmethod
    def load(cls, run: str, step: Step = None, device: str | None = None) -> Self:
        """InputError: no run there, or no such checkpoint. RunError: its weights are not whole."""
        model, folder = load_model(run, device, step), RunFolder(Path(run))
        trained = Trained(model.student, model.block, folder.config, find_student(run, step).step)
        return cls(model, trained, experts_of(trained.config, folder.index), run)

    @property
    def note(self) -> str:
        """What this run lacks of what a page can show; empty where it has all."""
        config = self.trained.config
        if config.thinking.states == "audio" and self.experts:
            return "heads of this run read the audio's own states (thinking.states = 'audio'), not a block's"
        if not self.model.block.ids_K:
            return "this run has no thinking block (thinking.count = 0): nothing can be decoded"
        if not self.experts:
            return "this run has no heads (nothing was distilled): the block's states cannot be decoded"
        return ""

    def listen(
        self,
        sound: Sound,
        prompts: Sequence[str],
        *,
        others: Sequence[Sound] = (),
        evidence: bool = True,
        max_new_tokens: int = MAX_NEW_TOKENS,
        names: Sequence[str] = (),
    ) -> Listened:
        """What was heard, and each prompt's answer with where it took its evidence.

        `others`: clips whose mean states stand for those that are replaced; without any, zeros do. `names`: of experts,
        all of the run's by default. InputError: audio that cannot be heard whole, or no such expert.
        """
        if unknown := [name for name in names if name not in self.experts]:
            raise InputError(
                f"{unknown[0]}: {self.run} has no head for it; there are {', '.join(self.experts) or 'none'}"
            )
        questions = [Question(None, p, sound.choices, sound.turns) for p in prompts]
        first = questions[0] if questions else Question(None, self.trained.config.data.transcribe_prompt)
        asked = ask(self.trained, sound.clip, sound.name, first)
        answers = [self.answer(sound, q, others if evidence else None, max_new_tokens) for q in questions]
        return Listened(
            name=sound.name,
            run=self.run,
            step=self.trained.step,
            seconds=sound.clip.seconds,
            clip=sound.clip,
            sound=sound_panels(sound.clip, self.trained.student.sample_rate),
            heard=tuple(self.panels(asked, sound, names or list(self.experts))),
            prompt=first.prompt if self.before_block(asked) else "",
            truth=sound.truth,
            answers=tuple(answers),
            note=self.note,
        )

    def panels(self, asked: Asked, sound: Sound, names: Sequence[str]) -> list[HeardPanel]:
        """Of the heads; where the audio's states are distilled beside the block's, those of its heads follow."""
        panels = []
        for heads, positions, title in self.readers(asked):
            states_1KD = self.states(asked, positions)
            for name in names:
                expert, target = self.experts[name], sound.targets.get(name, Target())
                frames = len(target.frames_ND) if target.frames_ND is not None else frames_within(expert, asked.seconds)
                heard_ND = self.heard(heads, name, states_1KD, asked.seconds, frames) if frames else None
                panels.append(heard_panel(title(name), expert, heard_ND, target))
        return panels

    def readers(self, asked: Asked) -> list[tuple[DistillHeads, Sequence[int], Callable[[str], str]]]:
        """Heads, the positions that they read, and how the panel of an expert is called."""
        every: list[tuple[DistillHeads | None, Sequence[int], Callable[[str], str]]] = [
            (self.model.heads, asked.states_K, str),
            (self.model.audio_heads, asked.positions(AUDIO), at_audio),
        ]
        return [(heads, positions, title) for heads, positions, title in every if heads is not None and positions]

    @torch.inference_mode()
    def states(self, asked: Asked, positions_K: Sequence[int]) -> Tensor:
        """`[1, K, D]`: of the layer that is distilled."""
        _, distilled_1TD = self.model.states(asked.inputs(self.trained.student.model.device))
        return distilled_1TD[:, list(positions_K)].float()

    @torch.inference_mode()
    def heard(
        self, heads: DistillHeads, name: str, states_1KD: Tensor, seconds: float, frames: int
    ) -> NDArray[np.float32]:
        """`[N, D]`: what the head of an expert says at its first N frame times."""
        mask_1K = torch.ones(states_1KD.shape[:2], dtype=torch.bool, device=states_1KD.device)
        seconds_1 = torch.tensor([seconds], device=states_1KD.device)
        return head_values(heads.predict(name, states_1KD, mask_1K, seconds_1, frames)[0], self.experts[name])

    def before_block(self, asked: Asked) -> bool:
        """Whether the question stands before the states that are read, so that they may depend on it."""
        asked_at = asked.positions(QUESTION)
        return bool(asked_at and asked.states_K) and asked_at[0] < asked.states_K[-1]

    def answer(self, sound: Sound, question: Question, others: Sequence[Sound] | None, max_new_tokens: int) -> Evidence:
        """Greedy, as `coat generate` gives it. `others` None: no evidence is looked for."""
        asked = ask(self.trained, sound.clip, sound.name, question)
        with torch.inference_mode():
            inputs = asked.inputs(self.trained.student.model.device)
            ids_1N = self.trained.generate(inputs, max_new_tokens)
        answer = self.trained.decode(ids_1N)[0]
        stops = set(self.trained.student.chat.stop_ids)
        said = ids_1N[0].tolist()
        said = said[: next((i for i, token in enumerate(said) if token in stops), len(said))]
        found = Evidence(prompt=question.prompt, answer=str(answer), cut=answer.is_cut)
        return found if others is None or not said else self.with_evidence(found, asked, said, others, question)

    def with_evidence(
        self, found: Evidence, asked: Asked, said: list[int], others: Sequence[Sound], question: Question
    ) -> Evidence:
        mean = self.mean_of(others, question)
        own_N, falls = effects(self.model, asked, said, mean)
        shares, why_no_rollout = self.rollout_shares(asked, said)
        tokens = [
            Token(
                text=self.trained.student.tokenizer.decode([token]),
                log_probability=float(own_N[n]),
                attention=shares[n] if shares else {},
                effect={role: float(fall_N[n]) for role, fall_N in falls.items()},
            )
            for n, token in enumerate(said)
        ]
        replaced_by = f"the mean of {mean.clips} other clips" if mean else "zeros"
        return found.with_tokens(tokens, replaced_by, why_no_rollout)

    def mean_of(self, others: Sequence[Sound], question: Question) -> MeanStates | None:
        """Kept until other clips, or something else, are asked: a gallery of one question asks the same again."""

        def asked() -> Iterator[Asked]:
            for other in others:
                with suppress(UnusableInput):  # longer than the student hears: others do as well
                    yield ask(self.trained, other.clip, other.name, question)

        key = question, tuple(other.name for other in others)
        if key not in self.last_mean:
            self.last_mean.clear()
            self.last_mean[key] = mean_states(self.model, asked())
        return self.last_mean[key]

    def rollout_shares(self, asked: Asked, said: Sequence[int]) -> tuple[list[dict[str, float]], str]:
        """For each token, the share of each role in the position that it was said at; or why there is none."""
        try:
            rows_TT = rollout(self.model, asked.inputs(self.trained.student.model.device, said))
        except NoAttention as e:
            return [], str(e)
        roles = np.array([*asked.roles, *["answer"] * len(said)])
        before = range(len(asked.ids) - 1, len(asked.ids) + len(said) - 1)
        return [
            {str(role): float(rows_TT[t, torch.from_numpy(roles == role)].sum()) for role in dict.fromkeys(roles)}
            for t in before
        ], ""


def sound_panels(clip: Clip, rate: int) -> tuple[Panel, ...]:
    return waveform_panel(clip.samples_T, clip.rate, 0.0), log_mel_panel(clip.at(rate), rate, 0.0)


def frames_within(expert: ExpertInfo, seconds: float) -> int:
    """Frames that are centred within a clip; at least one."""
    return max(1, int((seconds - expert.spec.start_s) * expert.spec.rate_hz + 1e-6) + 1)
