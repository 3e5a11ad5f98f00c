"""What is to be read off the states: experts' targets and labels of samples, a row a clip or a position.

N rows, C columns, F frames of a target. NaN: the row has none.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.analysis.probing.cache import key_of
from coat.drawing.text import shorten
from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.manifests.targets.members import experts_with_targets
from coat.manifests.targets.spec import TargetSpec
from coat.trainer.data.decoding import decode_meta, decode_target
from coat.trainer.data.shard_reading import read_shard_or_lost
from coat.trainer.model.losses import LOG2_F0, VOICED, VOICING

NAMED_COLUMNS = 8  # scalars up to so many are probed one by one
RAW = ("probabilities", "distribution")  # kinds whose columns are on one scale already
LEAST_CLIPS = 2  # of a class
Columns = NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """`y_NC`: numbers to be predicted, or a column a class, one-hot. A row without a target is NaN."""

    name: str
    y_NC: Columns
    classes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        return "accuracy" if self.classes else "r2"


@dataclass
class Wanted:
    """Of one sample: for how many positions targets are wanted one by one, over its seconds."""

    seconds: float
    counts: set[int] = field(default_factory=set)


@dataclass
class ClipTargets:
    """Of one sample: by expert `[C]`, the mean over its frames; by expert and number of positions `[P, C]`."""

    means: dict[str, Columns] = field(default_factory=dict)
    positions: dict[tuple[str, int], Columns] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)


def read_targets(
    index: ShardIndex,
    clips: Mapping[str, Wanted],
    experts: Sequence[str],
    labels: Sequence[str],
    told: Callable[[int], None],
) -> dict[str, ClipTargets]:
    """By key, of these samples. No audio is decoded. InputError where no sample has a label."""
    found: dict[str, ClipTargets] = {}
    keys: set[str] = set()
    wanted = {name: index.experts[name] for name in experts}
    shards = {key.rsplit("#", 1)[0] for key in clips}
    for shard in (shard for shard in index.shards if shard.name in shards):
        for number, raw in enumerate(read_shard_or_lost(index, shard, experts)):
            if (key := key_of(shard.name, number)) not in clips:
                continue
            meta = decode_meta(raw)
            clip = found[key] = ClipTargets(labels={name: label_of(meta, name) for name in labels})
            keys.update(meta["extra"] if isinstance(meta.get("extra"), dict) else ())
            for name in experts_with_targets(raw.members, wanted):
                spec = wanted[name].spec
                frames_FC = known_frames(decode_target(raw, name, wanted[name]), spec)
                clip.means[name] = mean_of_known(frames_FC)
                first_s = start_of(meta, name, spec)
                for count in clips[key].counts:
                    clip.positions[name, count] = at_positions(
                        frames_FC, first_s, spec.rate_hz, count, clips[key].seconds
                    )
            told(1)
    for name in labels:
        if all(clip.labels[name] is None for clip in found.values()):
            raise InputError(f"{index.path}: no sample has {name!r} in its extra, which has {listed(keys)}")
    return found


def listed(keys: Collection[str]) -> str:
    return shorten(", ".join(sorted(keys)) or "nothing", 200)


def start_of(meta: Mapping[str, Any], expert: str, spec: TargetSpec) -> float:
    """Seconds of the centre of frame 0; a piece of an utterance has its own."""
    starts = meta.get("starts")
    start_s = starts.get(expert) if isinstance(starts, dict) else None
    return float(start_s) if isinstance(start_s, int | float) else spec.start_s


def known_frames(frames_FC: NDArray[np.floating[Any]], spec: TargetSpec) -> Columns:
    """NaN where a frame is masked, and f0 where it is not voiced."""
    found = frames_FC.astype(np.float32)
    found[~np.isfinite(found).all(1)] = np.nan
    if spec.kind == "pitch":
        voiced_F = (found[:, VOICING] >= VOICED) & (found[:, LOG2_F0] > 0)
        found[~voiced_F, LOG2_F0] = np.nan
    return found


def mean_of_known(frames_FC: Columns) -> Columns:
    """`[C]`, in float64 meanwhile; NaN where no frame is known."""
    known_FC = np.isfinite(frames_FC)
    sums_C = np.where(known_FC, frames_FC, 0).sum(0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return (sums_C / known_FC.sum(0)).astype(np.float32)


def at_positions(frames_FC: Columns, start_s: float, rate_hz: float, count: int, seconds: float) -> Columns:
    """`[P, C]`: the mean of the frames within each position's share of the audio; where there is none, between the two
    frames beside its middle (the nearest, at the ends).

    Nominal times, as `heads.think_times` has them: P positions are spread evenly over the audio.
    """
    share_s = seconds / max(count, 1)
    at_F = start_s + np.arange(len(frames_FC)) / rate_hz
    position_F = np.floor(at_F / share_s).astype(np.int64) if share_s > 0 else np.full(len(at_F), -1)
    found = np.full((count, frames_FC.shape[1]), np.nan, np.float32)
    for p in range(count):
        within_FC = frames_FC[position_F == p]
        if len(within_FC):
            found[p] = mean_of_known(within_FC)
        elif len(frames_FC):
            place = ((p + 0.5) * share_s - start_s) * rate_hz
            place = min(max(place, 0.0), len(frames_FC) - 1.0)
            low = math.floor(place)
            high = min(low + 1, len(frames_FC) - 1)
            found[p] = (1 - (place - low)) * frames_FC[low] + (place - low) * frames_FC[high]
    return found


def label_of(meta: Mapping[str, Any], name: str) -> Any:
    """A key of the sample's extra, or of the sample itself; with dots it goes into objects. None where it has none."""
    for value in (meta.get("extra"), meta):
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def expert_targets(name: str, expert: ExpertInfo, rows_NC: Columns) -> list[Target]:
    """The targets that an expert's columns are: each by itself (pitch, few scalars), or all of them as one.

    Columns of hidden states are divided by their deviation, so that R2 weighs each of them alike.
    """
    spec = expert.spec
    if spec.kind == "pitch" or (spec.kind == "scalars" and spec.dim <= NAMED_COLUMNS):
        channels = spec.channels or tuple(map(str, range(spec.dim)))
        return [Target(f"{name}.{channel}", rows_NC[:, [c]]) for c, channel in enumerate(channels)]
    if spec.kind in RAW:
        return [Target(name, rows_NC)]
    known_NC = rows_NC[np.isfinite(rows_NC).all(1)].astype(np.float64)
    std_C = known_NC.std(0) if len(known_NC) else np.ones(rows_NC.shape[1])
    varies_C = std_C > 1e-6 * (np.abs(known_NC).max(0, initial=0) + 1e-12)
    return [Target(name, (rows_NC[:, varies_C] / std_C[varies_C]).astype(np.float32))]


def label_target(name: str, values: Sequence[Any], group_N: NDArray[np.int64]) -> Target:
    """Of one value a row: numbers are predicted, words (and true, false) told apart. Classes that fewer than
    LEAST_CLIPS groups have are left out. InputError where there is nothing to tell apart.
    """
    known = [value for value in values if value is not None]
    if all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in known):
        numbers = np.array([[np.nan if v is None else v] for v in values], np.float32)
        return Target(f"label {name}", numbers)
    if odd := next((v for v in known if not isinstance(v, str | bool)), None):
        raise InputError(f"--label {name}: one value is {odd!r:.60}; expected words, or numbers throughout")
    words = [None if v is None else str(v).lower() if isinstance(v, bool) else v for v in values]
    of_word: dict[str, set[int]] = {}
    for word, group in zip(words, group_N.tolist(), strict=True):
        if word is not None:
            of_word.setdefault(word, set()).add(group)
    classes = tuple(sorted(word for word, groups in of_word.items() if len(groups) >= LEAST_CLIPS))
    if len(classes) < 2:
        raise InputError(
            f"--label {name}: {len(classes)} of its {len(of_word)} values are in {LEAST_CLIPS} clips or more, not 2"
        )
    number = {word: c for c, word in enumerate(classes)}
    one_hot = np.full((len(words), len(classes)), np.nan, np.float32)
    for n, word in enumerate(words):
        if word in number:
            one_hot[n] = 0.0
            one_hot[n, number[word]] = 1.0
    return Target(f"label {name}", one_hot, classes)
