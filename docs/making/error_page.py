"""The page of errors: what to do about those that a user is likely to meet, then every error line of coat."""

import html
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from docs.making.messages import Message, messages

ADVICE = Path(__file__).with_name("advice.toml")

HEAD = """\
# Errors, and what to do

coat ends with one line where something is wrong: `error: WHERE: WHAT; WHAT TO DO`. Paste that line here. Names in
‹› and … stand for what is different each time.

<input id="coat-error" type="search" placeholder="Paste an error line, or type a word of it" aria-label="Error line" />
<p id="coat-error-found"></p>

Exit code 2 is a mistake in what was given: a file, a row, a name, an option. Exit code 1 is a machine, a disk, a
network or a store that failed; nothing half done is kept, and the same command goes on. *Fails a row* is the reason
why one row has no target: `coat status STORE --failed` lists them, and all other rows are done. A traceback is none of
these: it is a fault of coat or of the machine. `coat doctor` tells which.

"""

ROOMS = {  # by folder, the first that fits: in the order of the page
    "manifests/audio": "Audio files",
    "manifests/corpus": "Manifests",
    "manifests/sources": "Import",
    "manifests/addresses": "Addresses of audio",
    "manifests/storage": "Files and object stores",
    "manifests/targets": "Targets",
    "manifests/shards": "Shards, read",
    "extractors": "Experts and their weights",
    "pipeline/shard_checks": "Shards, checked",
    "pipeline/shards": "Shards, built",
    "pipeline/reductions": "Smaller targets",
    "pipeline/store_checks": "Stores, checked",
    "pipeline": "Extraction and stores",
    "trainer/config": "Training config",
    "trainer/students": "Students",
    "trainer/data": "Training data",
    "trainer/evaluation": "Evaluation",
    "trainer/fidelity": "Fidelity",
    "trainer/generation": "Answers and exports",
    "trainer/export": "Answers and exports",
    "trainer/serving": "Servers, compared with a run",
    "trainer": "Training",
    "coat/analysis": "Listening, probing, intervening",
    "coat/drawing": "Pages",
    "coat/doctor": "The doctor",
    "coat/recipe": "Recipes",
    "coat/cli": "Options of commands",
}
CODES = {0: "fails a row", 1: "exit 1", 2: "exit 2"}


@dataclass(frozen=True)
class Advice:
    group: str
    match: str
    do: str
    number: int


@cache
def advice() -> tuple[Advice, ...]:
    groups = tomllib.loads(ADVICE.read_text(encoding="utf-8"))["group"]
    listed = [(group["title"], one) for group in groups for one in group["advice"]]
    return tuple(Advice(title, one["match"], one["do"], i) for i, (title, one) in enumerate(listed, 1))


def room_of(message: Message) -> str:
    return next(title for folder, title in ROOMS.items() if message.file.startswith(folder))


def page() -> str:
    lines = [HEAD]
    group = ""
    for one in advice():
        if one.group != group:
            group = one.group
            lines.append(f"## {group}\n")
        lines.append(f'<a id="do-{one.number}"></a>`… {one.match} …`\n:   {one.do}\n')
    lines.append("## Every line\n")
    by_room: dict[str, dict[str, Message]] = {}
    for message in messages():
        by_room.setdefault(room_of(message), {}).setdefault(message.text, message)
    for title in dict.fromkeys(ROOMS.values()):
        lines += [f"### {title}\n", *map(entry, by_room.get(title, {}).values()), ""]
    return "\n".join(lines)


def entry(message: Message) -> str:
    """One line of HTML. `data-pattern` is what errors.js compares a pasted line with."""
    found = next((one for one in advice() if one.match in message.text), None)
    more = f' <a href="#do-{found.number}">what to do</a>' if found else ""
    pattern, text = html.escape(message.pattern), html.escape(message.text)
    where = f"{CODES[message.exit_code]}, {message.file}"
    return f'<div class="coat-error" data-pattern="{pattern}"><code>{text}</code><small>{where}{more}</small></div>'
