"""What is watched while a run trains: where gradients come from, and whether it can still get anywhere.

B batch, K think positions, R response tokens, D hidden dim.
"""

import math
import resource
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from coat.manifests import RunError
from coat.trainer.config.sections import RunConfig, StageConfig
from coat.trainer.model.parameters import model_part

WINDOW = 100  # steps whose median the gradient's norm is compared with
SETTLED = 20  # steps before it is compared at all
RUNNING = 10  # steps in a row that are too much
UNSEEN = 100  # steps without anything for a loss, after which that is said
NAMED = 8  # samples that are named
STATUS = Path("/proc/self/status")  # of Linux


def gradient_norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """`grad_norm/<group>`: lora, rows (of think tokens), student (`lora.full`), and each expert's head."""
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            groups.setdefault(f"grad_norm/{model_part(name)}", []).append(parameter.grad)
    norms = torch.stack([torch.nn.utils.get_total_norm(gradients) for gradients in groups.values()])
    return dict(zip(groups, norms.tolist(), strict=True))


def peak_memory(device: torch.device) -> float:
    """GiB of this process since it began: of the GPU's allocator, or resident where there is no GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if STATUS.exists():  # getrusage's begins at the parent's peak: Linux keeps it over fork and exec
        return (
            next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")) / 2**20
        )
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**30 if sys.platform == "darwin" else 2**20)


class Monitor:
    """Stops a run that cannot get anywhere, before a step changes the weights. RunError: step, what, what to do.

    All numbers are of all ranks, so that every rank stops at the same step. `kept` says what is left of the run.
    """

    def __init__(self, config: RunConfig, epoch: int, log: Callable[[str], None], kept: Callable[[], str]) -> None:
        self.max_growth, self.log, self.kept = config.max_growth, log, kept
        self.epoch = epoch  # samples in a row among which each one surely is
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.growing = 0  # steps in a row
        self.unseen: dict[str, list[int]] = {}  # loss: steps and samples without anything for it

    def stop(self, step: int, what: str, do: str) -> RunError:
        return RunError(f"step {step}: {what}; {do} ({self.kept()})")

    def counts(
        self, step: int, stage: StageConfig, counts: Mapping[str, float], weights: Mapping[str, float], samples: int
    ) -> None:
        """A loss that has a weight, and finds nothing to learn from. A target may be missing: that is said, once.

        Responses that are all missing, in samples of two epochs, stop the run.
        """
        for name, weight in weights.items():
            steps, seen = self.unseen.get(name, [0, 0])
            steps, seen = self.unseen[name] = [0, 0] if counts[name] or not weight else [steps + 1, seen + samples]
            what = "a response" if name == "ce" else f"a finite target of {name}"
            if steps == UNSEEN:
                self.log(f"step {step}: none of {seen} samples, in {UNSEEN} steps, had {what}")
            if name == "ce" and seen > self.epoch:
                do = f"give the rows a prompt and a response, or go on with ce = 0 in stage {stage.name} (--change)"
                raise self.stop(step, f"none of {seen} samples had {what}", do)

    def not_finite(self, step: int, culprits: Sequence[tuple[str, Sequence[str]]]) -> RunError:
        """`culprits`: losses and the samples of the passes where they were not finite, of all ranks."""
        names = ", ".join(sorted({name for name, _ in culprits}))
        ids = list(dict.fromkeys(i for _, some in culprits for i in some))
        do = "look at these samples and their targets, or go on with a lower optim.lr (--change)"
        return self.stop(step, f"the loss is not finite: {names}, in the pass of {some_of(ids)}", do)

    def norm(self, step: int, within: int, norm: float, norms: Mapping[str, float], ids: Sequence[str]) -> None:
        """A gradient that is not finite, or has been over `max_growth` times its median for some steps.

        `within` the stage: another one weighs the losses anew, and the norms with them. `norms` by group.
        """
        if not math.isfinite(norm):
            groups = ", ".join(n for n, value in norms.items() if not math.isfinite(value)) or "all together"
            raise self.stop(
                step,
                f"the gradient is not finite ({groups}), though the losses are, over {some_of(ids)}",
                "go on with a lower optim.lr, or with run.precision no (--change)",
            )
        if within == 0:
            self.norms.clear()
            self.growing = 0
        usual = median(self.norms) if len(self.norms) >= SETTLED else math.inf
        self.growing = self.growing + 1 if self.max_growth and norm > self.max_growth * usual else 0
        if self.growing == RUNNING:
            raise self.stop(
                step,
                f"the gradient's norm, {norm:.3g}, has been over {self.max_growth:g} times its median "
                f"({usual:.3g}) for {RUNNING} steps",
                "go on with a lower optim.lr (--change), or raise run.max_growth",
            )
        self.norms.append(norm)

    def state_dict(self) -> dict[str, Any]:
        return {"norms": list(self.norms), "growing": self.growing, "unseen": self.unseen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.norms.clear()
        self.norms.extend(state["norms"])
        self.growing, self.unseen = state["growing"], {k: list(v) for k, v in state["unseen"].items()}


def some_of(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{'sample' if len(ids) == 1 else 'samples'} {', '.join(ids[:NAMED])}{more}"
