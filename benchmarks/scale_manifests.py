"""Seconds and memory of manifests for many rows: `coat manifest import`, and reading one in parts.

    python -m benchmarks.scale_manifests --rows 100000 1000000 --folder /tmp/scale_manifests
    python -m benchmarks.scale_manifests --rows 1000000 5000000 10000000 --parts read --folder /tmp/scale_manifests

`jsonl`, `parquet` and `audio` import rows that have durations: of JSON lines, of Parquet, and of Parquet with audio
inside (400 bytes a row, which are not read). `read` reads spans of Parquet in parts of half a million rows, as
`coat extract` does. Of each a fresh process, whose CPU seconds are counted, and whose anonymous memory is looked at all
the time. Ten million rows of JSON lines take two minutes to make, and half an hour on a busy machine.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.scale import run
from benchmarks.scale_shards import anonymous_peak

PARTS = ("jsonl", "parquet", "audio", "read")
MOST_MB = 4000.0
ROWS_OF_PART, ROWS_OF_GROUP = 500_000, 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/scale_manifests"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    found = {part: [measure(arguments.folder, part, rows) for rows in arguments.rows] for part in arguments.parts}
    save(found)


def measure(folder: Path, part: str, rows: int) -> dict[str, Any]:
    place = folder / f"{part}-{rows}"
    place.mkdir(parents=True)
    try:
        run(["-m", "benchmarks.scale_manifests", "make", part, str(rows), str(place)])
        _, result = run(["-m", "benchmarks.scale_manifests", "do", part, str(rows), str(place)])
    finally:
        shutil.rmtree(place)
    print(json.dumps({"part": part, **result}), flush=True)
    return result


def save(found: dict[str, list[dict[str, Any]]]) -> None:
    from benchmarks.common import Figure, Results

    results = Results("scale_manifests", data={"results": found})
    for part, sizes in found.items():
        what = "reading spans of Parquet in parts" if part == "read" else f"`manifest import` of {part}"
        shown = ", ".join(f"{s['rows'] / 1e6:g}" for s in sizes)
        memory = ", ".join(f"{s['anonymous_mb']:.0f}" for s in sizes)
        cpu = ", ".join(f"{s['cpu_s'] / s['rows'] * 1e6:.1f}" for s in sizes)
        results.add(
            Figure(
                f"Memory of {what}, {sizes[-1]['rows'] / 1e6:g} million rows",
                f"{sizes[-1]['anonymous_mb']:.0f} MB",
                f"< {MOST_MB:g} MB",
                sizes[-1]["anonymous_mb"] < MOST_MB,
                f"{memory} MB and {cpu} µs of CPU a row at {shown} million",
            )
        )
    results.save()


def make(part: str, rows: int, place: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if part == "jsonl":
        with (place / "source.jsonl").open("w") as f:
            f.writelines(json.dumps(row_of(i)) + "\n" for i in range(rows))
        return
    at_once = ROWS_OF_PART if part == "read" else 10 * ROWS_OF_GROUP
    clips = [bytes([k]) * 400 for k in range(97)]
    writer = None
    for number, first in enumerate(range(0, rows, at_once)):
        made = [row_of(i) for i in range(first, min(first + at_once, rows))]
        if part == "audio":
            made = [
                {
                    "audio": {"bytes": clips[i % 97], "path": f"{i:09d}.wav"},
                    "duration": r["duration"],
                    "text": r["text"],
                }
                for i, r in enumerate(made, start=first)
            ]
        table = pa.Table.from_pylist(made)
        if part == "read":
            pq.write_table(table, place / f"part-{number:05d}.parquet")
            continue
        writer = writer or pq.ParquetWriter(place / "source.parquet", table.schema)
        writer.write_table(table, row_group_size=ROWS_OF_GROUP)
    if writer:
        writer.close()


def row_of(i: int) -> dict[str, Any]:
    return {
        "id": f"utt-{i:09d}",
        "audio_filepath": f"audio/{i // 1000:05d}/{i:09d}.flac",
        "duration": round(1 + i % 1900 / 100, 3),
        "text": f"some words of row {i}",
        "speaker": f"s{i % 5000}",
    }


def do(part: str, rows: int, place: Path) -> int:
    from coat.manifests.corpus.manifest import Manifest
    from coat.manifests.sources.importing import import_manifest

    if part == "read":
        return len(Manifest.read(str(place), spans=True, on_disk=True))
    source = next(place.glob("source.*"))
    return import_manifest(str(source), str(place / "m.jsonl"), read_headers=False).rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
        print("{}")
    elif sys.argv[1:2] == ["do"]:
        with anonymous_peak() as peak:
            done = do(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
        cpu = time.process_time()  # start included
        print(json.dumps({"rows": done, "cpu_s": round(cpu, 1), "anonymous_mb": round(peak[0])}))
    else:
        main()
