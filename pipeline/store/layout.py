"""Where everything of a target store lies.

    STORE/<expert>/<fingerprint>/spec.json                   what decides the values of the targets (TargetSpec)
    STORE/<expert>/<fingerprint>/batch.json                  what `--batch-seconds auto` chose
    STORE/<expert>/<fingerprint>/units/<unit>/frames.zarr    [frames of the unit, dim]
    STORE/<expert>/<fingerprint>/units/<unit>/rows.parquet   a row per utterance, with its outcome
    STORE/<expert>/<fingerprint>/units/<unit>/done.json      counts, digests, seconds by stage
    STORE/<expert>/<fingerprint>/index/<name>.parquet        rows and done.json of many units: a cache (segments.py)
    STORE/<expert>/<fingerprint>/building/                   units that are not committed yet
    STORE/<expert>/<fingerprint>/running/<run>.json          the lease of a living run: the units it has in hand
    STORE/<expert>/<fingerprint>/runs/<run>.jsonl            the log of a run

A unit exists when its done.json does; whatever else lies there is ignored. On an object store frames.zarr and
rows.parquet lie one folder deeper, in the one that `writer` in done.json names (publish.py).
"""

SPEC, UNITS, FRAMES, ROWS, DONE = "spec.json", "units", "frames.zarr", "rows.parquet", "done.json"
ARRAY = "zarr.json"  # the metadata of frames.zarr
BATCH = "batch.json"
BUILDING, RUNNING, RUNS, INDEX = "building", "running", "runs", "index"
