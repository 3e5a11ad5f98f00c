"""The experts: frozen audio models, one file each."""

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform, extract_windows
from coat.extractors.registry import EXPERTS, create, find
from coat.extractors.trial import Trial
from coat.extractors.windows import Window

__all__ = [
    "EXPERTS",
    "Card",
    "Expert",
    "Frames",
    "Options",
    "Trial",
    "Waveform",
    "Window",
    "create",
    "extract_windows",
    "find",
]
