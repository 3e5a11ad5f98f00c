"""What the tests of importers share."""

import json
from pathlib import Path
from typing import Any

import pytest

from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import ManifestError
from coat.manifests.sources.importing import import_manifest


def imported(source: Path, out: Path, **options: Any) -> list[Utterance]:
    done = import_manifest(str(source), str(out), **options)
    rows = list(Manifest.read(str(out)))
    assert done.rows == len(rows)
    return rows


def problems(source: Path, out: Path, **options: Any) -> list[str]:
    """One line each; and nothing must have been written."""
    with pytest.raises(ManifestError) as e:
        import_manifest(str(source), str(out), **options)
    assert not out.exists()
    lines = [f"{p.row}: {p.message}" for p in e.value.problems]
    assert all("\n" not in line for line in lines)
    return lines


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path
