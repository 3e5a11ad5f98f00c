"""Stops a run that cannot learn any more: losses or gradients that are not finite, gradients that grow, no labels.

A run may be allowed some steps that are not finite (`run.max_skipped_steps`): they change nothing, and are named.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from coat.manifests import RunError
from coat.trainer.config.sections import RunConfig, StageConfig

MEDIAN_STEPS = 100  # last steps, with whose median the gradient's norm is compared
MIN_STEPS = 20  # before it is compared at all
MAX_GROWING_STEPS = 10  # in a row
UNSEEN_STEPS = 100  # without anything for a loss, after which that is logged
MAX_NAMED = 8  # samples in a message

NotFinite = tuple[str, tuple[str, ...]]  # a loss, and the samples of the forward pass that gave it


@dataclass(frozen=True)
class SkippedStep:
    """A step that changed no weight. `what` was not finite: losses, or grad_norm/<group>."""

    step: int
    what: tuple[str, ...]
    ids: tuple[str, ...]  # of the samples: of the passes that gave those losses, or of the whole step


class Watchdog:
    """Checks each step before it changes the weights. RunError: the step, what is wrong, what to do.

    All numbers are of all ranks, so that every rank stops at the same step. `kept` says what is left of the run.
    """

    def __init__(self, config: RunConfig, epoch: float, log: Callable[[str], None], kept: Callable[[], str]) -> None:
        self.max_growth, self.max_skipped, self.log, self.kept = config.max_growth, config.max_skipped_steps, log, kept
        self.epoch = epoch  # so many samples in a row have every sample among them
        self.norms: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self.growing_steps = 0  # in a row
        self.unseen: dict[str, list[int]] = {}  # loss: steps and samples in a row without anything for it
        self.skipped_steps = 0  # of the run
        self.newly_skipped: list[SkippedStep] = []  # for the record: see `pop_skipped`

    def error(self, step: int, problem: str, advice: str) -> RunError:
        return RunError(f"step {step}: {problem}; {advice} ({self.kept()})")

    def check_counts(
        self, step: int, stage: StageConfig, counts: Mapping[str, float], weights: Mapping[str, float], samples: int
    ) -> None:
        """Look for losses that have a weight, and nothing to learn from. A missing target is logged once.

        Responses that are missing in all samples of an epoch stop the run.
        """
        for name, weight in weights.items():
            steps, seen = self.unseen.get(name, [0, 0])
            steps, seen = self.unseen[name] = [0, 0] if counts[name] or not weight else [steps + 1, seen + samples]
            missing = "a response" if name == "ce" else f"a finite target of {name}"
            if steps == UNSEEN_STEPS:
                self.log(f"step {step}: none of {seen} samples, in {UNSEEN_STEPS} steps, had {missing}")
            if name == "ce" and seen > self.epoch:
                advice = f"give the rows a prompt and a response, or go on with ce = 0 in stage {stage.name} (--change)"
                raise self.error(step, f"none of {seen} samples had {missing}", advice)

    def loss_not_finite(self, step: int, not_finite: Sequence[NotFinite]) -> None:
        """Skip a step for its losses, of all ranks."""
        names = sorted({name for name, _ in not_finite})
        ids = tuple(dict.fromkeys(i for _, pass_ids in not_finite for i in pass_ids))
        problem = f"the loss is not finite: {', '.join(names)}, in the pass of {name_samples(ids)}"
        advice = "look at these samples and their targets, or go on with a lower optim.lr (--change)"
        self.skip(SkippedStep(step, tuple(names), ids), problem, advice)

    def gradient_not_finite(self, step: int, group_norms: Mapping[str, float], ids: Sequence[str]) -> None:
        """Skip a step for its gradient, though all losses are finite. `ids` of all ranks."""
        groups = tuple(n for n, value in group_norms.items() if not math.isfinite(value))
        where = ", ".join(groups) or "all together"
        problem = f"the gradient is not finite ({where}), though the losses are, over {name_samples(ids)}"
        advice = "go on with a lower optim.lr, or with run.precision no (--change)"
        self.skip(SkippedStep(step, groups or ("grad_norm",), tuple(ids)), problem, advice)

    def skip(self, skipped: SkippedStep, problem: str, advice: str) -> None:
        """RunError where the run has left out as many steps as it may."""
        if self.skipped_steps >= self.max_skipped:
            before = f", after {self.skipped_steps} such steps that were left out (run.max_skipped_steps)"
            raise self.error(skipped.step, problem + (before if self.max_skipped else ""), advice)
        self.skipped_steps += 1
        self.newly_skipped.append(skipped)
        count = f"{self.skipped_steps} of {self.max_skipped} that run.max_skipped_steps allows"
        self.log(f"step {skipped.step}: {problem}; the step is left out ({count})")

    def pop_skipped(self) -> list[SkippedStep]:
        """Those since the last call."""
        skipped, self.newly_skipped = self.newly_skipped, []
        return skipped

    def begin_stage(self) -> None:
        """It weighs the losses anew, and the norms with them: what they were is forgotten."""
        self.norms.clear()
        self.growing_steps = 0

    def check_gradient(self, step: int, norm: float) -> None:
        """Look for a gradient that has been over `max_growth` times its median for some steps."""
        usual = median(self.norms) if len(self.norms) >= MIN_STEPS else math.inf
        too_large = self.max_growth and norm > self.max_growth * usual
        self.growing_steps = self.growing_steps + 1 if too_large else 0
        if self.growing_steps == MAX_GROWING_STEPS:
            raise self.error(
                step,
                f"the gradient's norm, {norm:.3g}, has been over {self.max_growth:g} times its median "
                f"({usual:.3g}) for {MAX_GROWING_STEPS} steps",
                "go on with a lower optim.lr (--change), or raise run.max_growth",
            )
        self.norms.append(norm)

    def state_dict(self) -> dict[str, Any]:
        return {
            "norms": list(self.norms), "growing": self.growing_steps, "unseen": self.unseen,
            "skipped_steps": self.skipped_steps,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.norms.clear()
        self.norms.extend(state["norms"])
        self.growing_steps = state["growing"]
        self.skipped_steps = state.get("skipped_steps", 0)  # runs of before have none
        self.unseen = {name: list(counts) for name, counts in state["unseen"].items()}


def name_samples(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
    return f"{'sample' if len(ids) == 1 else 'samples'} {', '.join(ids[:MAX_NAMED])}{more}"
