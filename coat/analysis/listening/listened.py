"""What is shown of a clip: panels of what was heard, and answers with their evidence. Plain data for any process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coat.analysis.listening.panels import HeardPanel
from coat.drawing.panels import Panel, TimeAxis, axis_of
from coat.manifests import Clip


@dataclass(frozen=True)
class Token:
    """One token of an answer."""

    text: str
    log_probability: float  # nats
    attention: Mapping[str, float]  # by role, of 1: what rollout lets reach it; empty: no rollout
    effect: Mapping[str, float]  # by role: nats that its log-probability falls when the role's states are replaced


@dataclass(frozen=True)
class Evidence:
    """An answer, and where its tokens took their evidence."""

    prompt: str
    answer: str
    cut: bool
    tokens: tuple[Token, ...] = ()  # empty: not looked for, or nothing was said
    replaced_by: str = ""
    why_no_rollout: str = ""

    def with_tokens(self, tokens: Sequence[Token], replaced_by: str, why_no_rollout: str) -> "Evidence":
        return replace(self, tokens=tuple(tokens), replaced_by=replaced_by, why_no_rollout=why_no_rollout)

    def effects(self) -> dict[str, float]:
        """By role, summed over the tokens: nats of the whole answer."""
        roles = self.tokens[0].effect if self.tokens else ()
        return {role: sum(token.effect[role] for token in self.tokens) for role in roles}

    def to_dict(self) -> dict[str, Any]:
        tokens = [
            {
                "text": t.text,
                "log_probability": t.log_probability,
                "attention": dict(t.attention),
                "effect": dict(t.effect),
            }
            for t in self.tokens
        ]
        return {
            "prompt": self.prompt, "answer": self.answer, "cut": self.cut, "replaced_by": self.replaced_by or None,
            "no_attention": self.why_no_rollout or None, "effect": self.effects(), "tokens": tokens,
        }  # fmt: skip


@dataclass(frozen=True)
class Listened:
    """All that a page shows."""

    name: str
    run: str
    step: int | None
    seconds: float
    clip: Clip
    sound: tuple[Panel, ...]
    heard: tuple[HeardPanel, ...]
    prompt: str  # that stood before what was heard; "" where that cannot depend on it
    truth: str | None
    answers: tuple[Evidence, ...] = ()
    note: str = ""  # what the run lacks

    @property
    def panels(self) -> tuple[Panel, ...]:
        return *self.sound, *(heard.panel for heard in self.heard)

    @property
    def axis(self) -> TimeAxis:
        return axis_of(0.0, self.seconds, self.panels)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.name, "run": self.run, "step": self.step, "seconds": self.seconds, "note": self.note or None,
            "experts": [heard.to_dict() for heard in self.heard], "answers": [a.to_dict() for a in self.answers],
            "truth": self.truth,
        }  # fmt: skip
