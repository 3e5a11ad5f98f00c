"""`coat quickstart`: the whole main job on a corpus made by synthesis, in some minutes on two cores."""

import json
import time
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import Json
from coat.cli.output import bytes_text, duration_text, table
from coat.cli.targets.extract import ProgressListener, show_summaries

if TYPE_CHECKING:
    from coat.pipeline.extraction.summary import Summary
    from coat.trainer.config.train_config import TrainConfig
    from coat.trainer.evaluation.results import Counts, Results

EXPERTS = ("pitch", "vad", "mel", "yamnet", "prosody")  # whose weights come inside packages
STUDENT: dict[str, Any] = {"hidden": 64, "heads": 4, "text_layers": 2, "audio_layers": 1, "weights_std": 0.1}
EXAMPLES = 5  # answers that are shown
GUARD = 16  # clips that are asked again with other audio and with silence
REPORT_AUDIO = 24_000_000  # bytes of clips in the page


def quickstart(
    out: Annotated[str, typer.Option(help="Folder for everything it makes.")] = "runs/quickstart",
    clips: Annotated[int, typer.Option(help="Clips to synthesise.", min=40)] = 600,
    seed: Annotated[int, typer.Option(help="Of the corpus and the student.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over the training config; repeat.")] = None,
    json_output: Json = False,
) -> None:
    """Run the whole job on a small synthetic corpus: extract, build shards, train, ask.

    Needs no downloads: the experts' weights come inside packages, the student is tiny and learns from scratch.

    Example:  coat quickstart --out runs/quickstart
    """
    from coat.manifests.corpus.synthesis import make_corpus

    started = time.monotonic()
    root = Path(out)
    recipe(root, seed, set_ or [])  # a mistake in --set is found before anything is made
    claim(root, {"clips": clips, "seed": seed, "set": set_ or []})
    say = Step(quiet=json_output)

    say(f"{clips} clips with known truth and a question each")
    make_corpus(str(root / "corpus"), seed=seed, clips=clips)
    say("what each expert hears, frame by frame")
    summaries = extract_all(root, json_output)
    say("audio, text and targets, joined into WebDataset shards")
    index = build(root, [s.expert for s in summaries])
    say("a tiny Qwen2-Audio, from scratch, with its thinking block")
    trained = train_student(root, seed, set_ or [], json_output)
    say("held-out clips, each answered with the block in one prefill, as `coat evaluate` asks them")
    results = ask(root, json_output)

    result = {
        "out": out,
        "clips": clips,
        "hours": sum(s.audio_seconds for s in summaries) / max(1, len(summaries)) / 3600,
        "experts": {s.expert: {"ok": s.ok, "rtfx": s.rtfx, "bytes": s.bytes, "frames": s.frames} for s in summaries},
        "shards": {"samples": index.samples, "bytes": index.bytes, "seconds": index.seconds},
        "train": trained,
        "heldout": scores(results),
        "seconds": time.monotonic() - started,
    }
    if json_output:
        typer.echo(json.dumps(result, indent=2))
        return
    show_summaries(summaries)
    show(root, result, results)


def claim(root: Path, settings: dict[str, Any]) -> None:
    """One folder holds one quickstart; running it again goes on where it stopped. InputError for another one."""
    from coat.manifests import storage
    from coat.manifests.errors import InputError

    note = str(root / "quickstart.json")
    if storage.exists(note) and storage.read_json(note) != settings:
        raise InputError(f"{root}: holds a quickstart with other settings ({note}); choose another --out")
    if not storage.exists(note) and root.is_dir() and any(root.iterdir()):
        raise InputError(f"{root}: not empty; choose another --out")
    storage.write_bytes(note, storage.to_json(settings))


class Step:
    """Numbers the parts of the job on stderr."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.number = quiet, 0

    def __call__(self, what: str) -> None:
        self.number += 1
        if not self.quiet:
            typer.secho(f"[{self.number}/5] {what}", err=True, bold=True)


def extract_all(root: Path, quiet: bool) -> "list[Summary]":
    """With every expert that is installed here; the others are named."""
    from coat.extractors.registry import find, why_unusable
    from coat.pipeline.cluster.resources import Resources
    from coat.pipeline.extraction.extraction import extract

    reasons = {name: why_unusable(find(name).card) for name in EXPERTS}
    watcher = ProgressListener(quiet)
    for name, reason in reasons.items():
        if reason:
            watcher.say(f"without {name}: {reason}")
    manifest, store = str(root / "corpus" / "manifest.jsonl"), str(root / "targets")
    usable = [name for name, reason in reasons.items() if reason is None]
    try:
        return extract(manifest, store, usable, resources=Resources(workers=0), listener=watcher)
    finally:
        watcher.close()


def build(root: Path, experts: Sequence[str]) -> Any:
    from coat.pipeline.shards.build import build_shards

    manifest, store = str(root / "corpus" / "train.jsonl"), str(root / "targets")
    return build_shards(manifest, store, experts, str(root / "shards"), overwrite=True)


def recipe(root: Path, seed: int, overrides: list[str]) -> "TrainConfig":
    """What lies beside this file, with the folders of this quickstart."""
    from coat.trainer.config.train_config import TrainConfig

    file = package_files("coat.cli") / "quickstart.toml"
    here = [f"student.path={root / 'student'}", f"data.shards={root / 'shards'}", f"run.out={root / 'run'}"]
    seeds = [f"run.seed={seed}", f"data.seed={seed}"]
    return TrainConfig.read(str(file), [*here, *seeds, *overrides])


def train_student(root: Path, seed: int, overrides: list[str], quiet: bool) -> dict[str, Any]:
    from coat.cli.training import train as train_command
    from coat.manifests.corpus.manifest import Manifest
    from coat.trainer.run_folder import read_metrics
    from coat.trainer.tiny_students.make import make_tiny_student, texts_of
    from coat.trainer.training.train import train

    with train_command.quiet(), train_command.progress_lines() as show_report:
        if not (root / "student").exists():
            rows = Manifest.read(str(root / "corpus" / "train.jsonl"))
            make_tiny_student(root / "student", **STUDENT, texts=texts_of(rows), seed=seed)
        made = recipe(root, seed, overrides)
        (root / "train.toml").write_text(made.to_toml())  # for the next steps
        result = train(made, on_report=(lambda _: None) if quiet else show_report)
    if not result.finished:
        raise KeyboardInterrupt
    rows = read_metrics(root / "run")
    first, last = rows[0], rows[-1]
    losses = {k: [first[k], last[k]] for k in first if k in last and (k == "ce" or k.startswith("distill/"))}
    return {"steps": result.step, "seconds": result.seconds, "losses": losses}


def ask(root: Path, quiet: bool) -> "Results":
    """`coat evaluate` of the held-out clips, and `coat report` of that."""
    from coat.cli.trained.evaluate import run_evaluation, settings_of
    from coat.cli.training import train as train_command
    from coat.trainer.evaluation.reports.report import write_report

    settings = settings_of(
        None, [str(root / "corpus" / "heldout.jsonl")], whom={"run": str(root / "run")}, max_new_tokens=12, guard=GUARD
    )
    with train_command.quiet():
        results = run_evaluation(settings, root / "evaluation", 1, quiet)
    assert results is not None  # there is one rank
    write_report([str(root / "evaluation")], str(root / "report.html"), "embed", REPORT_AUDIO)
    return results


def scores(results: "Results") -> dict[str, Any]:
    """By the strict rule, of all clips and by task."""
    found = results.benchmarks["manifest"]
    return {name: of_part(part) for name, part in {"all": found, **found.groups.get("task", {})}.items()}


def of_part(part: "Counts") -> dict[str, Any]:
    unparsed = (part.unparsed + part.missing + part.empty) / part.rows
    accuracy, chance = part.scores.strict["accuracy"], part.chance or 0.0
    return {"rows": part.rows, "accuracy": accuracy, "chance": chance, "unparsed": unparsed}


def listen_command(root: Path, identity: str) -> str:
    """What the block heard in a held-out clip, beside the experts' targets."""
    where = f"--manifest {root / 'corpus' / 'heldout.jsonl'} --store {root / 'targets'} --id {identity}"
    return f"coat listen --run {root / 'run'} {where} --out {root / 'heard.html'}"


def show(root: Path, result: dict[str, Any], results: "Results") -> None:
    from coat.manifests.corpus.manifest import Manifest
    from coat.trainer.evaluation.predictions import read_predictions

    losses = [[name, f"{a:.3f}", f"{b:.3f}"] for name, (a, b) in result["train"]["losses"].items()]
    table("Losses", ["loss", "first", "last"], losses)
    found = [
        [name, s["rows"], f"{s['accuracy']:.0%}", f"{s['chance']:.0%}", f"{s['unparsed']:.0%}"]
        for name, s in result["heldout"].items()
    ]
    table("Held-out clips", ["task", "clips", "right", "by chance", "unparsed"], found)
    asked = {u.id: u for u in Manifest.read(str(root / "corpus" / "heldout.jsonl"))}
    answers = list(read_predictions(root / "evaluation").values())[:EXAMPLES]
    examples = [
        [asked[p.id].audio_filepath, asked[p.id].prompt, p.answer or "(none)", asked[p.id].response] for p in answers
    ]
    table("Answers", ["clip", "question", "answered", "truth"], examples)
    audio, held = result["hours"] * 3600, result["heldout"]["all"]
    all_bytes = sum(e["bytes"] for e in result["experts"].values())
    rows = [
        ["corpus", f"{result['clips']} clips, {duration_text(audio)} of audio"],
        ["targets", f"{len(result['experts'])} experts, {bytes_text(all_bytes)} of frames written"],
        ["shards", f"{result['shards']['samples']} samples, {bytes_text(result['shards']['bytes'])}"],
        ["training", f"{result['train']['steps']} steps, {duration_text(result['train']['seconds'])}"],
        ["held-out accuracy", f"{held['accuracy']:.0%}, by chance {held['chance']:.0%}"],
        ["every answer, with its audio", str(root / "report.html")],
        ["all of it took", duration_text(result["seconds"])],
    ]
    table("Quickstart", ["what", "came out"], rows)
    typer.echo(results.heading)
    first = asked[answers[0].id]
    clip, prompt = root / "corpus" / first.audio_filepath, first.prompt
    typer.echo("Next:")
    for line in (
        f"coat status {root / 'targets'}",
        f'coat generate --run {root / "run"} --audio {clip} --prompt "{prompt}"',
        listen_command(root, first.id),
        f"coat evaluate --run {root / 'run'} --data YOURS.jsonl --out evals/yours",
        f"tensorboard --logdir {root / 'run' / 'tensorboard'}",
        "coat extract --expert pitch --manifest YOURS.jsonl --store targets",
    ):
        typer.echo(f"  {line}")
