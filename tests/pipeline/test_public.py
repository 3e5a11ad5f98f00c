"""Public names: light to import, and the things that they say."""

import subprocess
import sys

import coat.pipeline


def test_every_public_name_is_its_own_object() -> None:
    for name in coat.pipeline.__all__:
        assert getattr(coat.pipeline, name).__name__ == name
    assert set(coat.pipeline.__all__) == set(coat.pipeline.PUBLIC)


def test_reading_a_store_loads_neither_torch_nor_ray() -> None:
    code = "import sys; from coat.pipeline import TargetStore; print([m for m in ('torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
