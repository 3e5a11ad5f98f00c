"""The experts: frozen audio models, one file each."""

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.registry import EXPERTS, create, find

__all__ = ["EXPERTS", "Card", "Expert", "Frames", "Options", "Waveform", "create", "find"]
