"""What the user says of tars."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TarOptions:
    tars: str = ""  # a pattern of the tars that a manifest of NeMo's is of; empty: those that lie beside it
    tar_in_id: bool = False  # ids begin with the name of the tar
    mapped: frozenset[str] = frozenset()  # columns that `--map` names
