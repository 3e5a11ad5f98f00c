"""What a stage left, in a few words, read from its own files: for the page and for machines."""

import json
from pathlib import Path
from typing import Any

from coat.drawing.text import bytes_text, duration_text
from coat.manifests import ShardIndex, storage
from coat.recipe.notes import Notes
from coat.recipe.stages import Place, Stage

LINKS = {
    "run": ("config.toml", "metrics.jsonl"),
    "evaluation": ("results.json",),
    "shards": ("index.json",),
    "tree": ("README.md",),
}


def facts_of(stage: Stage, notes: Notes) -> list[str]:
    """A line for each thing that it made and that is there."""
    found: list[str] = []
    for place in stage.outputs:
        if place.kind == "targets":
            found += [
                f"{t['expert']} {t['fingerprint'][:8]}: {t['ok']:,} rows"
                + (f", {t['failed']:,} failed" if t["failed"] else "")
                for t in notes.identity(place) or []
            ]
        elif notes.identities.is_there(place):
            found += facts_of_place(place, notes.identities.url(place.path))
    return found


def facts_of_place(place: Place, url: str) -> list[str]:
    if place.kind == "shards":
        index = ShardIndex.read(url)
        return [f"{index.samples:,} samples, {duration_text(index.seconds)} of audio, {bytes_text(index.bytes)}"]
    if place.kind == "run":
        return run_facts(Path(url))
    if place.kind == "evaluation":
        return evaluation_facts(storage.read_json(storage.join(url, "results.json")))
    if place.kind in ("manifest", "page") and storage.is_local(url) and Path(url).is_file():
        return [f"{Path(url).name}, {bytes_text(Path(url).stat().st_size)}"]
    return []


def run_facts(run: Path) -> list[str]:
    """The last logged step, and its losses."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines() if (run / "metrics.jsonl").exists() else []
    done = f"{storage.read_json(str(run / 'done.json'))['step']:,} steps"
    if not lines:
        return [done]
    last: dict[str, Any] = json.loads(lines[-1])
    losses = [f"{name} {last[name]:.3f}" for name in last if name == "ce" or name.startswith("distill/")]
    return [", ".join([done, *losses])]


def evaluation_facts(results: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for label, part in results["benchmarks"].items():
        scores = ", ".join(f"{name} {value:.1%}" for name, value in list(part["scores"]["strict"].items())[:2])
        chance = f", by chance {part['chance']:.1%}" if part.get("chance") else ""
        found.append(f"{label}: {scores or 'not scored'} of {part['rows']:,} rows{chance}")
    return found


def links_of(stage: Stage, notes: Notes) -> dict[str, str]:
    """Files of a stage that people open: name to path or URL; those that are there."""
    found: dict[str, str] = {}
    for place in stage.outputs:
        url = notes.identities.url(place.path)
        if place.kind == "page":
            found[Path(url).name if Path(url).name != "index.html" else Path(url).parent.name] = url
        for name in LINKS.get(place.kind, ()):
            found[name] = storage.join(url, name)
    return {name: url for name, url in found.items() if storage.is_local(url) and storage.is_file(url)}
