"""The benchmarks by name. A new one is a file in `benchmarks/` and a line here, an entry point, or a file of yours."""

import importlib
import importlib.util
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import xxhash

from coat.manifests import InputError
from coat.trainer.evaluation.benchmark import Benchmark

GROUP = "coat.benchmarks"  # of entry points
HOME = "coat.trainer.evaluation.benchmarks"
BENCHMARKS = {
    "mmau": f"{HOME}.mmau:MMAU",
    "mmau-first": f"{HOME}.mmau:MMAUFirst",
    "mmar": f"{HOME}.mmar:MMAR",
    "mmsu": f"{HOME}.mmsu:MMSU",
    "mmau-pro": f"{HOME}.mmau_pro:MMAUPro",
    "air-bench": f"{HOME}.air_bench:AirBench",
    "muchomusic": f"{HOME}.muchomusic:MuChoMusic",
    "gtzan": f"{HOME}.gtzan:GTZAN",
    "nsynth": f"{HOME}.nsynth:NSynth",
    "medley-solos": f"{HOME}.medley_solos:MedleySolos",
    "meld": f"{HOME}.meld:MELD",
    "iemocap": f"{HOME}.iemocap:IEMOCAP",
    "librispeech": f"{HOME}.librispeech:LibriSpeech",
    "asr": f"{HOME}.asr:SpeechRecognition",
    "alpaca-audio": f"{HOME}.alpaca_audio:AlpacaAudio",
    "voicebench": f"{HOME}.voicebench:VoiceBench",
    "manifest": f"{HOME}.manifest:ManifestQuestions",
}


def benchmark_names() -> list[str]:
    """The built-in ones, then those of installed packages (entry points of the group `coat.benchmarks`)."""
    return [*BENCHMARKS, *(name for name in sorted(entry_points(group=GROUP).names) if name not in BENCHMARKS)]


def find_benchmark(name: str) -> Benchmark:
    """InputError where there is none of that name.

    Code runs only of what was named: a built-in one, an entry point of an installed package, a module, or a file.
    """
    if name in BENCHMARKS:
        found = import_class(name, BENCHMARKS[name])
    elif ".py:" in name:
        path, _, cls = name.rpartition(":")
        found = class_of_file(name, Path(path).resolve(), cls)
    elif ":" in name:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # as for experts: a file that lies here is what its author means
        found = import_class(name, name)
    elif entries := entry_points(group=GROUP, name=name):
        found = import_class(name, next(iter(entries)).value)
    else:
        raise InputError(
            f"--benchmark {name}: no such benchmark; one of {', '.join(benchmark_names())}, package.module:Class, "
            "or path/to/file.py:Class"
        )
    if not (isinstance(found, type) and issubclass(found, Benchmark)):
        raise InputError(f"--benchmark {name}: is not a Benchmark")
    return found()


def import_class(name: str, place: str) -> object:
    module, _, cls = place.partition(":")
    try:
        return getattr(importlib.import_module(module), cls)
    except (ImportError, SyntaxError, AttributeError) as e:
        raise InputError(f"--benchmark {name}: cannot be imported ({e})") from e


def class_of_file(name: str, path: Path, cls: str) -> object:
    """Executed once for each state of the file."""
    if not path.is_file():
        raise InputError(f"--benchmark {name}: no file {path}")
    known = f"coat_benchmark_{path.stem}_{xxhash.xxh3_64_hexdigest(path.read_bytes())}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, path)
        assert spec, path  # it ends in .py
        assert spec.loader, path
        sys.modules[known] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[known])
        except (ImportError, SyntaxError) as e:
            del sys.modules[known]
            raise InputError(f"--benchmark {name}: cannot be imported ({e})") from e
    if not hasattr(sys.modules[known], cls):
        raise InputError(f"--benchmark {name}: cannot be imported (there is no {cls} in {path})")
    return getattr(sys.modules[known], cls)
