"""What reductions leave of Whisper's states of recordings. COAT_REAL_DIR and COAT_WHISPER_DIR as in test_real_job."""

from pathlib import Path

import pytest

from coat.extractors.expert import Options
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.reductions.options import ReductionOptions
from coat.pipeline.shards.build import build_shards
from tests.integration.helpers import folder

pytestmark = pytest.mark.real

# Bytes of float32 / bytes, and the least mean cosine: the goal is an eighth at 0.99.
REACHED = {
    "int8": ({"dtype": "int8"}, 4.0, 0.999),
    "int4": ({"dtype": "int4"}, 8.0, 0.99),
    "384 components, int4": ({"pca": "whisper=384", "dtype": "int4"}, 8.0, 0.99),
    "192 components, int8": ({"pca": "whisper=192", "dtype": "int8"}, 7.8, 0.96),
    "192 components, int4": ({"pca": "whisper=192", "dtype": "int4"}, 16.0, 0.95),
    "25 Hz, int8": ({"rate": "25", "dtype": "int8"}, 7.9, 0.95),
}


def test_an_eighth_of_float32_at_a_cosine_of_099(tmp_path: Path) -> None:
    manifest, store = str(folder("COAT_REAL_DIR") / "manifest.jsonl"), str(tmp_path / "store")
    extract(
        manifest,
        store,
        ["whisper"],
        Options(checkpoint=str(folder("COAT_WHISPER_DIR"))),
        resources=Resources(workers=0),
    )
    for name, (options, smaller, cosine) in REACHED.items():
        reduction_options = ReductionOptions.parse(**options)
        out = str(tmp_path / name)
        index = build_shards(manifest, store, ["whisper"], out, missing="skip", reduction_options=reduction_options)
        found = index.experts["whisper"].fidelity
        assert found is not None
        assert found["apart"], "measured on utterances that nothing was fitted to"
        kept, share = found["original"], 2 * found["bytes_per_hour_before"] / found["bytes_per_hour"]
        cosines = f"cosine {kept['cosine']:.4f} (95 % above {kept['cosine_p5']:.4f})"
        print(
            f"whisper, {name}: 1/{share:.1f} of float32, {cosines}, "
            f"relative error {kept['relative_error']:.3f}, explained variance {kept['explained_variance']:.4f}"
        )
        assert share >= smaller - 0.1
        assert kept["cosine"] >= cosine
