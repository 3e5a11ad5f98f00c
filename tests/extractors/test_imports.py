import subprocess
import sys

HEAVY = (
    "torch",
    "transformers",
    "onnxruntime",
    "onnx",
    "opensmile",
    "nemo",
    "huggingface_hub",
    "swift_f0",
    "pandas",
    "librosa",
    "torchcrepe",
    "scipy",
)


def test_cards_are_shown_without_heavy_imports() -> None:
    code = (
        "import sys; from coat.extractors.registry import EXPERTS, find; "
        "[find(name).card for name in EXPERTS]; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
