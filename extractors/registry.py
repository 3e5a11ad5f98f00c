"""The experts by name. A new one is a file and a line here, or `--expert package.module:Class`."""

import importlib
import importlib.util
import os
import sys

from coat.extractors.expert import Card, Expert, Options
from coat.manifests.errors import InputError

EXPERTS = {
    "mel": "coat.extractors.mel:Mel",
    "whisper": "coat.extractors.whisper:Whisper",
    "wav2vec2": "coat.extractors.wav2vec2:Wav2Vec2",
    "nemo": "coat.extractors.nemo:Nemo",
    "ast": "coat.extractors.ast:AST",
    "yamnet": "coat.extractors.yamnet:YAMNet",
    "prosody": "coat.extractors.prosody:Prosody",
    "pitch": "coat.extractors.pitch:Pitch",
    "vad": "coat.extractors.vad:VAD",
}


def find(name: str) -> type[Expert]:
    """The class of an expert; InputError where there is none of that name."""
    place = EXPERTS.get(name, name)
    module, _, cls = place.partition(":")
    if not cls:
        known = f"one of {', '.join(EXPERTS)} (repeat --expert for several), or package.module:Class"
        raise InputError(f"--expert {name}: no such expert; {known}")
    if name not in EXPERTS and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a file that lies here is what its author means; console scripts do not look
    try:
        found = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError, SyntaxError) as e:
        raise InputError(f"--expert {name}: cannot be imported ({e})") from e
    if not (isinstance(found, type) and issubclass(found, Expert)):
        raise InputError(f"--expert {name}: {place} is not an Expert")
    return found


def unusable(card: Card) -> str | None:
    """Why the expert cannot run here, with the remedy; None where it can."""
    missing = [m for m in card.requires if importlib.util.find_spec(m) is None]
    if missing:
        return f"needs {', '.join(missing)}: pip install 'coat-audio[{card.extra}]'"
    return None


def create(name: str, options: Options) -> Expert:
    """An expert whose spec is known. InputError: unknown, not installed, or not with these options."""
    cls = find(name)
    if reason := unusable(cls.card):
        raise InputError(f"--expert {name}: {reason}")
    if not (options.checkpoint or cls.card.checkpoint):
        raise InputError(f"--expert {name}: has no default checkpoint; give --checkpoint ID_OR_DIR")
    return cls(options)
