"""What every expert must hold, tried on sounds that are made here.

`coat experts --check NAME` prints it, and the tests run it on every expert, and on broken ones that it must find. How
an expert is tried it says itself (`Expert.trial`). Each check gives what it measured, or raises CheckFailed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from coat.extractors.conformance.batch_checks import (
    a_clip_gives_the_same_twice,
    batch_mates_change_nothing,
    frames_are_left_alone,
    frames_may_be_cast_on_the_device,
    no_clips_give_no_targets,
    padded_samples_grow_with_the_clip,
    the_shortest_clip_gives_a_frame,
)
from coat.extractors.conformance.check import CheckFailed, NotApplicable
from coat.extractors.conformance.event_checks import (
    a_burst_shows_where_the_spec_says,
    a_glide_shows_where_the_spec_says,
    a_tone_shows_where_the_spec_says,
)
from coat.extractors.conformance.frame_checks import (
    frames_cover_the_clip,
    silence_and_full_scale_are_finite,
    values_fit_their_kind,
)
from coat.extractors.conformance.precision_checks import bfloat16_is_near
from coat.extractors.conformance.spec_checks import (
    other_weights_give_other_targets,
    the_spec_agrees_with_the_class,
    the_spec_survives_json,
    windows_are_in_the_spec,
)
from coat.extractors.conformance.window_checks import (
    frames_at_a_seam_lie_where_the_spec_says,
    long_audio_is_heard_to_its_end,
    windows_equal_a_single_pass,
)
from coat.extractors.expert import Expert
from coat.manifests.errors import one_line


@dataclass(frozen=True)
class Finding:
    """What became of one check. `held` is None where it does not apply."""

    check: str
    held: bool | None
    said: str


Check = Callable[[Expert], str]
CHECKS: dict[str, Check] = {
    function.__name__: function
    for function in (
        the_spec_survives_json,
        the_spec_agrees_with_the_class,
        windows_are_in_the_spec,
        frames_cover_the_clip,
        values_fit_their_kind,
        a_burst_shows_where_the_spec_says,
        a_tone_shows_where_the_spec_says,
        a_glide_shows_where_the_spec_says,
        silence_and_full_scale_are_finite,
        a_clip_gives_the_same_twice,
        frames_are_left_alone,
        frames_may_be_cast_on_the_device,
        batch_mates_change_nothing,
        the_shortest_clip_gives_a_frame,
        no_clips_give_no_targets,
        long_audio_is_heard_to_its_end,
        frames_at_a_seam_lie_where_the_spec_says,
        windows_equal_a_single_pass,
        padded_samples_grow_with_the_clip,
        other_weights_give_other_targets,
        bfloat16_is_near,
    )
}


def run_checks(expert: Expert) -> Iterator[Finding]:
    """Every check on a loaded expert, one after the other."""
    for name, function in CHECKS.items():
        words = name.replace("_", " ")
        try:
            yield Finding(words, True, function(expert))
        except NotApplicable as e:
            yield Finding(words, None, str(e))
        except CheckFailed as e:
            yield Finding(words, False, str(e))
        except Exception as e:  # noqa: BLE001  whatever an expert raises here is what is wrong with it
            yield Finding(words, False, f"raised {type(e).__name__}: {one_line(e, 300)}")
