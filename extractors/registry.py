"""The experts by name. A new one is a file and a line here, an entry point of a package, or a class named in full."""

import importlib
import importlib.util
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from coat.extractors.checkpoints.checkpoint import digest_files
from coat.extractors.expert import Card, Expert, Options
from coat.manifests.errors import InputError

GROUP = "coat.experts"  # of entry points
EXPERTS = {
    "mel": "coat.extractors.experts.mel:Mel",
    "whisper": "coat.extractors.experts.whisper:Whisper",
    "wav2vec2": "coat.extractors.experts.wav2vec2:Wav2Vec2",
    "phonemes": "coat.extractors.experts.phonemes:Phonemes",
    "emotion": "coat.extractors.experts.emotion:Emotion",
    "music": "coat.extractors.experts.music:Music",
    "nemo": "coat.extractors.experts.nemo:Nemo",
    "nemo-ctc": "coat.extractors.experts.nemo_ctc:NemoCTC",
    "ast": "coat.extractors.experts.ast:AST",
    "yamnet": "coat.extractors.experts.yamnet:YAMNet",
    "clap": "coat.extractors.experts.clap:CLAP",
    "pe-audio": "coat.extractors.experts.pe_audio:PEAudio",
    "codec": "coat.extractors.experts.codec:Codec",
    "student-audio": "coat.extractors.experts.student_audio:StudentAudio",
    "prosody": "coat.extractors.experts.prosody:Prosody",
    "prosody-lite": "coat.extractors.experts.prosody_lite:ProsodyLite",
    "pitch": "coat.extractors.experts.pitch:Pitch",
    "crepe": "coat.extractors.experts.crepe:Crepe",
    "pyin": "coat.extractors.experts.pyin:PYin",
    "chroma": "coat.extractors.experts.chroma:Chroma",
    "vad": "coat.extractors.experts.vad:VAD",
    "marblenet": "coat.extractors.experts.marblenet:MarbleNet",
    "titanet": "coat.extractors.experts.titanet:TitaNet",
}


def expert_names() -> list[str]:
    """The built-in experts, then those of installed packages (entry points of the group `coat.experts`)."""
    return [*EXPERTS, *(entry for entry in sorted(entry_points(group=GROUP).names) if entry not in EXPERTS)]


def find(name: str) -> type[Expert]:
    """The class of an expert; InputError where there is none of that name.

    Code runs only of what was named: a built-in expert, an entry point of an installed package, a module, or a file.
    """
    if name in EXPERTS:
        found = import_class(name, EXPERTS[name])
    elif ".py:" in name:
        path, _, cls = name.rpartition(":")
        found = class_of(name, load_module(name, Path(path)), cls)
    elif ":" in name:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a file that lies here is what its author means; console scripts do not look
        found = import_class(name, name)
    elif entries := entry_points(group=GROUP, name=name):
        found = import_class(name, next(iter(entries)).value)
    else:
        known = (
            f"one of {', '.join(expert_names())} (repeat --expert for several), package.module:Class, "
            "or path/to/file.py:Class"
        )
        raise InputError(f"--expert {name}: no such expert; {known}")
    if not (isinstance(found, type) and issubclass(found, Expert)):
        raise InputError(f"--expert {name}: is not an Expert")
    return found


def portable_name(name: str) -> str:
    """The same name for a worker, which runs in another folder: a file by its absolute path."""
    path, _, cls = name.rpartition(":")
    return f"{Path(path).resolve()}:{cls}" if path.endswith(".py") else name


def import_class(name: str, place: str) -> object:
    module, _, cls = place.partition(":")
    try:
        return class_of(name, importlib.import_module(module), cls)
    except (ImportError, SyntaxError) as e:
        raise InputError(f"--expert {name}: cannot be imported ({e})") from e


def load_module(name: str, path: Path) -> ModuleType:
    """The module of a file, executed once for each state of it."""
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"--expert {name}: no file {path}")
    known = f"coat_expert_{path.stem}_{digest_files([path])[-12:]}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec, path  # it ends in .py
    assert spec.loader, path
    module = sys.modules[known] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as e:
        del sys.modules[known]
        raise InputError(f"--expert {name}: cannot be imported ({e})") from e
    return module


def class_of(name: str, module: ModuleType, cls: str) -> object:
    if not hasattr(module, cls):
        raise InputError(f"--expert {name}: cannot be imported (there is no {cls} in {module.__file__})")
    return getattr(module, cls)


def why_unusable(card: Card) -> str | None:
    """Why the expert cannot run here, with the remedy; None where it can."""
    missing = [m for m in card.requires if importlib.util.find_spec(m) is None]
    if missing:
        return f"needs {', '.join(missing)}: pip install 'coat-audio[{card.extra}]'"
    return None


def create(name: str, options: Options) -> Expert:
    """An expert whose spec is known. InputError: unknown, not installed, or not with these options."""
    cls = find(name)
    if reason := why_unusable(cls.card):
        raise InputError(f"--expert {name}: {reason}")
    if not (options.checkpoint or cls.card.checkpoint):
        raise InputError(f"--expert {name}: has no default checkpoint; give --checkpoint ID_OR_DIR")
    return cls(options)
