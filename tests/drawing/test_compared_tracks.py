"""What was heard over its target: one scale, one order of rows, and what is said of a frame."""

import io
from typing import Any

import numpy as np
from PIL import Image

from coat.drawing.compared_tracks import compared_tracks
from coat.drawing.panels import Panel, TimeAxis, axis_of
from coat.drawing.tracks import track_png
from coat.manifests.targets.spec import TargetSpec

rng = np.random.default_rng(0)


def spec(kind: str, dim: int, family: str = "events", **more: Any) -> TargetSpec:
    fields: dict[str, Any] = {"expert": "e", "version": 1, "family": family, "kind": kind, "dim": dim, "rate_hz": 10.0}
    return TargetSpec(**fields, start_s=0.0, sample_rate=16000, min_samples=1, **more)


def frames(count: int, dim: int) -> np.ndarray:
    return rng.normal(size=(count, dim)).astype(np.float32)


def test_images_of_states_have_one_scale_and_order() -> None:
    target = frames(50, 40) * np.arange(1, 41, dtype=np.float32)
    (heard, truth), drawn = compared_tracks(target.copy(), target, spec("representation", 40))
    np.testing.assert_array_equal(heard.values, truth.values)
    assert (heard.low, heard.high) == (truth.low, truth.high)
    assert set(heard.readouts) == {"cosine 1.00"}
    assert "standardised by the target's" in drawn
    mean = np.broadcast_to(target.mean(0), target.shape).astype(np.float32)
    (pale, truth_again), _ = compared_tracks(mean, target, spec("representation", 40))
    np.testing.assert_allclose(pale.values, 0.0, atol=1e-5)  # a head that says the mean alone is pale
    np.testing.assert_array_equal(truth_again.values, truth.values)
    (flipped, _), _ = compared_tracks(2 * mean - target, target, spec("representation", 40))
    np.testing.assert_allclose(flipped.values, -truth.values, atol=1e-4)


def test_bands_of_a_spectrum_have_one_scale() -> None:
    heard_ND, target_ND = frames(20, 40), 3 * frames(20, 40)
    (heard, target), _ = compared_tracks(heard_ND, target_ND, spec("scalars", 40, "reconstruction"))
    assert (heard.low, heard.high) == (target.low, target.high) == (target_ND.min(), target_ND.max())
    np.testing.assert_allclose(heard.values, heard_ND)


def test_classes_are_those_of_either() -> None:
    heard, target = np.zeros((6, 20), np.float32), np.zeros((6, 20), np.float32)
    heard[2, 3], target[4, 11] = 0.9, 0.8
    tracks, drawn = compared_tracks(heard, target, spec("probabilities", 20))
    assert [track.name for track in tracks][:2] == ["dim 3", "dim 11"]
    assert drawn.startswith("3 of 20 classes")
    assert tracks[0].readouts[2] == "0.9 / 0"
    assert tracks[1].readouts[4] == "0 / 0.8"
    assert tracks[1].reference is not None
    np.testing.assert_array_equal(tracks[1].reference, target[:, 11])


def test_a_scale_spans_both_curves() -> None:
    heard, target = np.zeros((5, 2), np.float32), np.full((5, 2), 7.0, np.float32)
    tracks, _ = compared_tracks(heard, target, spec("scalars", 2))
    assert all(track.low < 0 and track.high > 7 for track in tracks)
    one = np.array([[8.0, 1.0]], np.float32), np.array([[9.0, 0.0]], np.float32)
    (f0, voicing), _ = compared_tracks(*one, spec("pitch", 2, "pitch"))
    assert f0.readouts == ["256 / –"]
    assert voicing.readouts == ["1 / 0"]


def test_the_target_is_drawn_below_what_was_heard() -> None:
    """Two levels, in two colours: blue where 1 was heard, orange where the target says 0."""
    heard, target = np.ones((10, 1), np.float32), np.zeros((10, 1), np.float32)
    (track,), _ = compared_tracks(heard, target, spec("scalars", 1))
    panel = Panel(title="e", rate_hz=10.0, tracks=(track,))
    axis: TimeAxis = axis_of(0.0, 1.0, [panel])
    image = picture(track_png(track, panel, axis))
    blue, orange = (
        np.argwhere(distance(image, colour) < 60)[:, 0].mean() for colour in ((0, 114, 178), (237, 184, 64))
    )
    assert blue < image.shape[0] / 3
    assert orange > 2 * image.shape[0] / 3


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def distance(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image - np.array(colour)).sum(axis=2)
