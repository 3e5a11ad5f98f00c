"""The Expert protocol: what a frozen audio model must give to be extracted.

T samples, N frames, D dim. An expert owns its model and nothing else: decoding, resampling, batching,
retries and writing are the worker's.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from coat.extractors.trial import Trial
from coat.extractors.windows import (
    Frames,
    Waveform,
    Window,
    kept_frames,
    padded_batches,
    plan_windows,
    split_into_windows,
)
from coat.manifests.errors import InputError
from coat.manifests.targets.spec import Family, Kind, TargetSpec

# Padded seconds of a batch on CPUs: a clip of some seconds fills them, and larger activations only miss their caches.
CPU_BATCH_S = 30.0
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What `coat experts` shows of an expert without loading it."""

    family: Family
    kind: Kind | None  # None: as the checkpoint has it
    what: str  # one frame, in a few words
    source: str  # paper or project
    licence: str  # of the weights
    dim: int | None = None  # None: as the checkpoint has it
    rate_hz: float | None = None
    checkpoint: str | None = "none"  # default; None: the user must name one
    extra: str | None = None  # of coat-audio, that installs what it needs
    requires: tuple[str, ...] = ()  # modules that must be installed


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may choose of an expert. All of it ends in the spec."""

    checkpoint: str | None = None  # hub id (`org/name` or `org/name@revision`), folder or file
    layer: str | None = None  # a number, "last", or "mean:4,5,6": what an expert makes of it, its docstring says
    dtype: str = "float16"  # as stored
    precision: str = "float32"  # as computed: float32, bfloat16, float16
    compile: bool = False  # the model by torch.compile: faster after minutes of compiling, equal but for rounding
    # Seconds of silence after a clip instead of a full window, for models that always hear one (whisper). Inexact.
    pad_margin: float | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision {self.precision}: expected one of {', '.join(PRECISIONS)}")
        if self.pad_margin is not None and not 0 <= self.pad_margin < math.inf:
            raise InputError(f"--pad-margin {self.pad_margin}: expected seconds, zero or more")

    def changed(self) -> list[str]:
        """Names of the options that are not at their default; any expert takes `dtype`."""
        return [f.name for f in fields(self) if f.name != "dtype" and getattr(self, f.name) != f.default]


class Expert(ABC):
    """A frozen model that gives one vector per frame.

    Making one is cheap: it reads configurations and digests weights, so that `spec` is known (and a
    user's mistake found: InputError) before any work is scheduled. `load` puts the model on a device.
    """

    name: ClassVar[str]  # as the command line and the store call it
    version: ClassVar[int] = 1  # of this code: raised when its values change
    card: ClassVar[Card]
    takes: ClassVar[tuple[str, ...]] = ()  # the options that it has a use for, beside dtype; others are refused
    trial: Trial = Trial()  # an instance may have its own
    spec: TargetSpec  # what its targets are; made by `describe`
    # Padded audio per forward pass on a GPU, in seconds: what a batch is cut by. Halved when memory runs out.
    batch_seconds: float = 120.0
    chosen_batch_seconds: float | None = None  # in place of it, on any device: what the user said or was measured
    device: str = "cpu"  # set by `load` where the model can be elsewhere
    # What `extract` may cast its frames to while they are on the device; a worker says float16 where that is stored.
    frames_dtype: str = "float32"
    # Whether the clips of a batch are padded to the longest; False: they are heard one by one, or with their equals.
    pads: bool = True
    # Whether `extract` may run in several threads at once, a clip in each: for models that use one CPU thread and let
    # others run meanwhile, as C code under ctypes does. A worker with more CPUs then hears as many clips at once.
    parallel_rows: bool = False
    # Longer audio than `window_s` is heard in windows of that length, and of these the frames are kept that have
    # `context_s` seconds of the window on both sides of their centre. Where a frame hears no more than that, the
    # result equals a single pass; where it does, it is another one. Set them before `describe`: they are in the spec.
    window_s: float = 30.0
    context_s: float = 2.0

    def __init__(self, options: Options) -> None:
        """InputError where an option was given that the expert has no use for."""
        self.options = options
        for option in options.changed():
            if option not in self.takes:
                flag = option.replace("_", "-")
                raise InputError(f"--expert {self.name}: takes no --{flag} (got {getattr(options, option)})")

    def describe(
        self, *, dim: int, rate_hz: float, start_s: float, sample_rate: int, min_samples: int, **more: Any
    ) -> TargetSpec:
        """The spec: what is given here, and what the class and the options say. `more`: fields of TargetSpec."""
        options = {"compiled": True} if self.options.compile else {}
        own = {"window_s": self.window_s, "context_s": self.context_s, **options}
        values: dict[str, Any] = {
            "expert": self.name, "version": self.version, "family": self.card.family, "kind": self.card.kind,
            "dtype": self.options.dtype, "precision": self.options.precision, **more,
        }  # fmt: skip
        values["settings"] = {**values.get("settings", {}), **own}
        return TargetSpec(
            dim=dim, rate_hz=rate_hz, start_s=start_s, sample_rate=sample_rate, min_samples=min_samples, **values
        )

    @abstractmethod
    def load(self, device: str) -> None:
        """Put the model on `device` ("cpu", "cuda:0"), in eval mode, without gradients."""

    @abstractmethod
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        """One `[N, D]` array per waveform, for any number and any lengths from `min_samples` to a window.

        Float32, or already as `frames_dtype` says.

        Frame i must be centred at `spec.times(N)[i]`, and must not depend on the other waveforms. For longer
        audio: `extract_windows(expert, waveforms)`.
        """

    @property
    def budget_seconds(self) -> float:
        """What a batch is cut by where the model runs now."""
        if self.chosen_batch_seconds is not None:
            return self.chosen_batch_seconds
        return self.batch_seconds if self.device.startswith("cuda") else min(self.batch_seconds, CPU_BATCH_S)

    def stream(self, waveforms: Iterable[Waveform], batch_seconds: float | None = None) -> Iterator[Frames]:
        """Frames of the windows of one clip, in order. A model with a memory takes it from one to the next here."""
        budget = (batch_seconds or self.budget_seconds) * self.spec.sample_rate
        for group in padded_batches(waveforms, lambda x: self.padded_samples(len(x)), budget):
            yield from self.extract(group)

    def windows(self, samples: int) -> list[Window]:
        """How a clip of this length is heard: in one window, as long as it fits."""
        rate, spec = self.spec.sample_rate, self.spec
        return plan_windows(
            samples,
            size=round(self.window_s * rate),
            context=math.ceil(round(self.context_s * rate, 3)),
            hop=rate / fraction(spec.rate_hz),
            centre=fraction(spec.start_s * rate),
        )

    def padded_samples(self, samples: int) -> int:
        """Samples that a clip of at most a window costs in a batch on its own; fixed-window models say more."""
        return samples


def fraction(value: float) -> Fraction:
    """The ratio that a float stands for: 2.08333... is 25/12."""
    return Fraction(value).limit_denominator(100_000)


def extract_windows(expert: Expert, waveforms: Sequence[Waveform]) -> list[Frames]:
    """What the pipeline does, in memory: clips of any length, in batches and windows."""
    found: dict[int, Frames] = {}
    plans = [expert.windows(len(x)) for x in waveforms]
    budget = expert.budget_seconds * expert.spec.sample_rate
    short = [i for i, plan in enumerate(plans) if len(plan) == 1]
    for group in padded_batches(short, lambda i: expert.padded_samples(len(waveforms[i])), budget):
        found |= zip(group, expert.extract([waveforms[i] for i in group]), strict=True)
    for i, plan in enumerate(plans):
        if len(plan) > 1:
            found[i] = np.concatenate([*kept_frames(expert.stream(split_into_windows([waveforms[i]], plan)), plan)])
    return [found[i] for i in range(len(waveforms))]
