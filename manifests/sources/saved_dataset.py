"""What Hugging Face `datasets` wrote with `save_to_disk`, read without it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.sources.records import Record, first_line, numbered


def read_saved_dataset(path: str) -> Iterator[Record]:
    """What Hugging Face `datasets` wrote with `save_to_disk`, read without it; parts of a dict as `split`."""
    splits = Path(path, "dataset_dict.json")
    if splits.is_file():
        names = storage.read_json(str(splits))
        if not isinstance(names, dict) or not isinstance(names.get("splits"), list):
            raise InputError(f"{splits}: no splits; expected what `save_to_disk` writes")
        for split in map(str, names["splits"]):
            for record in read_saved_dataset(str(Path(path, Path(split).name))):
                yield Record(record.file, record.row, {"split": split, **record.values}, record.problem)
        return
    try:
        names = [
            Path(part["filename"]).name for part in storage.read_json(str(Path(path, "state.json")))["_data_files"]
        ]
    except (FileNotFoundError, KeyError, TypeError) as e:
        raise InputError(f"{path}: no state.json as `save_to_disk` writes it ({e})") from e
    for file in (str(Path(path, name)) for name in names):
        try:
            with pyarrow.memory_map(file) as source, pyarrow.ipc.open_stream(source) as stream:
                yield from numbered(file, (row for batch in stream for row in batch.to_pylist()))
        except FileNotFoundError as e:
            raise InputError(f"{file}: no such file, though {path}/state.json names it") from e
        except pyarrow.ArrowException as e:
            raise InputError(f"{file}: not a whole Arrow file ({first_line(e)})") from e
