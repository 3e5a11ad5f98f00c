"""See what experts heard: one utterance, its sound, and every expert's target on one time axis.

    inspection = inspect("targets", "corpus.jsonl", "a1")
    storage.write_bytes("a1.html", inspection_page(inspection))
    storage.write_bytes("a1.png", inspection_figure(inspection))

Nothing is extracted: what a target set lacks is said in its place. N frames, D dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coat.drawing.panels import Panel, TimeAxis, axis_of
from coat.drawing.sound import log_mel_panel, waveform_panel
from coat.manifests.audio.clip import AudioError, Clip
from coat.manifests.audio.file import AudioFile
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.inspect.expert_panels import NamedTarget, expert_panel
from coat.pipeline.inspect.selection import find_utterance, select_seconds, select_target_sets

USUAL_RATE = 16000  # Hz that experts hear at


@dataclass(frozen=True)
class Inspection:
    """All that a page or a figure shows."""

    utterance: Utterance
    seconds: float  # of the utterance
    start_s: float  # of what is shown, from the utterance's start
    end_s: float
    clip: Clip | None  # its sound; None where it cannot be decoded
    sound: tuple[Panel, ...]
    experts: tuple[Panel, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return *self.sound, *self.experts

    @property
    def axis(self) -> TimeAxis:
        """It ends behind the sound where frames are centred there (experts pad short clips)."""
        if self.end_s < self.seconds:
            return TimeAxis(self.start_s, self.end_s, self.end_s)
        return axis_of(self.start_s, self.end_s, self.experts)

    @property
    def excerpt_note(self) -> str:
        """What is left out; empty where all is shown."""
        if self.start_s == 0 and self.end_s >= self.seconds:
            return ""
        shown = f"{self.start_s:g} to {self.end_s:g} s of {self.seconds:.1f} s"
        return f"{shown} are shown: --start and --end show other parts"


def inspect(
    store: str,
    manifest: Manifest | str,
    identity: str,
    experts: Sequence[str] = (),
    start_s: float | None = None,
    end_s: float | None = None,
) -> Inspection:
    """What the experts (all that the store has, or some: `name`, `name@fingerprint`) heard in one utterance.

    Of long audio the first DEFAULT_SHOWN_S seconds are taken, or those from `start_s` to `end_s`. InputError: an id,
    expert or time that is not there.
    """
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    utterance = find_utterance(manifest, identity)
    if utterance.text_only:
        raise InputError(f"{manifest.path}: {identity} is text alone; there is nothing to hear")
    targets = [NamedTarget.find(name, found, utterance) for name, found in select_target_sets(store, experts)]
    return inspect_utterance(utterance, targets, start_s, end_s)


def inspect_utterance(
    utterance: Utterance, targets: Sequence[NamedTarget], start_s: float | None = None, end_s: float | None = None
) -> Inspection:
    """The same of targets that were found. InputError: a time that is not there."""
    span, audio_error = None, ""
    try:
        span = AudioFile(utterance.audio).span(utterance.offset, utterance.duration)
    except AudioError as e:
        audio_error = f"{e.reason}: {e}"
    decoded_s = [t.row.seconds for t in targets if t.row and t.row.status == "ok"]
    seconds = span.seconds if span else max([utterance.duration or 0.0, *decoded_s]) or 1.0
    start, end = select_seconds(start_s, end_s, seconds)
    clip = None
    if span:
        first, last = round(start * span.rate), min(round(end * span.rate), span.samples)
        try:
            clip = replace(span, start=span.start + first, samples=max(1, last - first)).decode()
        except AudioError as e:
            audio_error = f"{e.reason}: {e}"
    whole = clip if clip and span and len(clip.samples_T) == span.samples else None
    return Inspection(
        utterance=utterance,
        seconds=seconds,
        start_s=start,
        end_s=end,
        clip=clip,
        sound=sound_panels(clip, start, [t.target_set.spec for t in targets], audio_error),
        experts=tuple(expert_panel(t, start, end, seconds, whole) for t in targets),
    )


def sound_panels(clip: Clip | None, start: float, specs: Sequence[TargetSpec], audio_error: str) -> tuple[Panel, ...]:
    """Waveform and log-mel; without a clip, why there is none."""
    if clip is None:
        return (Panel(title="waveform", problem=f"there is no sound to show. {audio_error}"),)
    rate = max([USUAL_RATE, *(spec.sample_rate for spec in specs)])
    return waveform_panel(clip.samples_T, clip.rate, start), log_mel_panel(clip.at(rate), rate, start)
