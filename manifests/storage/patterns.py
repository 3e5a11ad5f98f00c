"""One name for many files: `a-{000..063}.tar`, `{train,dev}.jsonl`, `part-*.parquet`, NeMo's `_OP_0..63_CL_`; a folder.

Here or in a store. Braces name files that must be there; stars those that are.
"""

import fnmatch
import glob
import itertools
import re
from collections.abc import Iterator

from coat.manifests.errors import InputError
from coat.manifests.storage.files import exists, in_parallel, list_files, list_names
from coat.manifests.storage.urls import is_local, join, local_path, parent

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
NEMO = (("_OP_", "{"), ("_CL_", "}"))
MOST_FILES = 1_000_000


def is_pattern(url: str) -> bool:
    """Whether it stands for several files; a file that is called so is itself."""
    return has_braces(url) or (any(c in url for c in "*?[") and not (is_local(url) and local_path(url).exists()))


def has_braces(url: str) -> bool:
    """Ranges and choices: `{0..63}`, `{a,b}`, `_OP_0..63_CL_`."""
    return any(".." in inside or "," in inside for inside in BRACES.findall(without_nemo(url)))


def without_nemo(url: str) -> str:
    for theirs, ours in NEMO:
        url = url.replace(theirs, ours)
    return url


def expand(url: str) -> list[str]:
    """The files that a pattern stands for, in order; of what is none, itself. InputError where stars find nothing."""
    found = list(itertools.chain.from_iterable(map(expand_stars, expand_braces(without_nemo(url)))))
    if len(set(found)) < len(found):
        twice = next(name for i, name in enumerate(found) if name in found[:i])
        raise InputError(f"{url}: stands for {twice} twice")
    return found


def expand_braces(url: str) -> Iterator[str]:
    """In order. InputError where a range is none, or there are too many."""
    parts = BRACES.split(url)  # text, inside of braces, text, ...
    choices = [[part] if i % 2 == 0 else inside_braces(url, part) for i, part in enumerate(parts)]
    count = 1
    for several in choices:
        count *= len(several)
    if count > MOST_FILES:
        raise InputError(f"{url}: stands for {count:,} files; expected at most {MOST_FILES:,}")
    return ("".join(chosen) for chosen in itertools.product(*choices))


def inside_braces(url: str, inside: str) -> list[str]:
    if "," in inside:
        return [choice for part in inside.split(",") for choice in (numbers(url, part) if ".." in part else [part])]
    return numbers(url, inside) if ".." in inside else [f"{{{inside}}}"]


def numbers(url: str, inside: str) -> list[str]:
    """`000..063`: all have the width of the first."""
    found = RANGE.fullmatch(inside)
    if not found or int(found[1]) > int(found[2]):
        raise InputError(f"{url}: {{{inside}}} is no range; expected {{FIRST..LAST}}, such as {{000..063}}")
    if int(found[2]) - int(found[1]) >= MOST_FILES:
        raise InputError(f"{url}: {{{inside}}} stands for more than {MOST_FILES:,} files")
    width = len(found[1]) if found[1].startswith("0") else 0
    return [f"{i:0{width}d}" for i in range(int(found[1]), int(found[2]) + 1)]


def expand_stars(url: str) -> list[str]:
    if not any(c in url for c in "*?[") or (is_local(url) and local_path(url).exists()):
        return [url]
    if is_local(url):
        found = sorted(glob.glob(str(local_path(url)), recursive=True))
    elif any(c in parent(url) for c in "*?["):
        raise InputError(f"{url}: stars in the names of folders are for local files; name the folder, or use braces")
    else:
        folder, name = parent(url), url.rsplit("/", 1)[-1]
        found = [join(folder, n) for n in sorted(fnmatch.filter(list_names(folder), name))]
    if not found:
        raise InputError(f"{url}: no such files")
    return found


def files_below(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files of a folder, at any depth, by the ends of their names (in lower case); hidden ones are left out."""
    names = sorted(f.name for f in list_files(folder))
    return [
        join(folder, name)
        for name in names
        if name.lower().endswith(suffixes) and not any(part.startswith(".") for part in name.split("/"))
    ]


def check_all_there(files: list[str]) -> None:
    """InputError names those of a pattern that are not there."""
    missing = [url for url, there in zip(files, in_parallel(exists, files), strict=True) if not there]
    if missing:
        more = f", and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{', '.join(missing[:3])}{more}: no such file ({len(files) - len(missing)} of {len(files)} are there)"
        )
