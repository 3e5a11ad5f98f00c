"""Official records to rows, and rows to verdicts."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from coat.manifests import Manifest, Utterance
from coat.trainer.evaluation.benchmark import Verdict, score
from coat.trainer.evaluation.importing import import_benchmark
from coat.trainer.evaluation.registry import find_benchmark
from tests.trainer.evaluation.sounds import write_tone


def imported(
    tmp_path: Path, name: str, records: Any, *audio: str, source: str = "records.json", **options: Any
) -> list[Utterance]:
    """Rows of the manifest that `coat benchmark import` makes of records, with a tone for each audio file."""
    for path in audio:
        write_tone(tmp_path / "audio" / path)
    place = tmp_path / source
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.endswith(".parquet"):
        pyarrow.parquet.write_table(pa.Table.from_pylist(records), place)
    elif source.endswith(".jsonl"):
        place.write_text("".join(json.dumps(r) + "\n" for r in records))
    elif source.endswith(".json"):
        place.write_text(json.dumps(records))
    else:
        place.write_text(records)
    options = {"audio_root": str(tmp_path / "audio"), **options}
    import_benchmark(find_benchmark(name), options.pop("of", str(place)), str(tmp_path / f"{name}.jsonl"), **options)
    return list(Manifest.read(str(tmp_path / f"{name}.jsonl")))


def verdicts(name: str, row: Utterance, answer: str | None, judgement: str | None = None) -> tuple[Verdict, Verdict]:
    found = score(find_benchmark(name), row, answer, judgement)
    assert found
    return found


def rights(name: str, row: Utterance, answer: str | None) -> tuple[bool, bool]:
    """Official and strict."""
    official, strict = verdicts(name, row, answer)
    return official.right, strict.right
