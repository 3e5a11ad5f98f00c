"""`coat listen`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coat.cli.clips import (
    ClipOptions,
    Disagree,
    Failed,
    Ids,
    Limit,
    Longest,
    PageWorkers,
    Sample,
    Seed,
    Wrong,
    page_workers,
)
from coat.cli.options import AllowHttp, Json, RunStep, comma_separated
from coat.cli.output import bytes_text, table
from coat.cli.training.train import quiet

if TYPE_CHECKING:
    from coat.analysis.listening.listened import Listened
    from coat.analysis.listening.session import ListeningSession, Sound
    from coat.manifests import Manifest, Utterance

MEAN_CLIPS = 8  # whose states are averaged


def listen(
    run: Annotated[str, typer.Option(help="Folder of a run.")],
    out: Annotated[str, typer.Option(help="HTML page to write. Of several clips: a folder.")],
    png: Annotated[str | None, typer.Option(help="Picture of the panels to write, for a paper.")] = None,
    step: RunStep = None,
    audio: Annotated[str | None, typer.Option(help="Audio file.")] = None,
    manifest: Annotated[str | None, typer.Option(help="Manifest that the clip is a row of.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Target store: the experts' targets are drawn beside what was heard.")
    ] = None,
    identity: Annotated[str | None, typer.Option("--id", help="The row of the manifest.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to ask; repeat. Default: the manifest's own prompt, if it has one.")
    ] = None,
    experts: Annotated[str, typer.Option(help="Names with commas. Default: all that the run has heads for.")] = "",
    replace_by: Annotated[
        Literal["auto", "mean", "zero"],
        typer.Option(
            "--replace",
            help="What stands for the states that are replaced: their mean over other clips of the manifest, or zero. "
            "auto: the mean where there is a manifest.",
        ),
    ] = "auto",
    no_evidence: Annotated[bool, typer.Option("--no-evidence", help="Only what was heard, and answers.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    sample: Sample = None,
    seed: Seed = 0,
    ids: Ids = None,
    failed: Failed = False,
    longest: Longest = None,
    disagree: Disagree = None,
    wrong: Wrong = None,
    limit: Limit = 50,
    workers: PageWorkers = None,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Hear what a trained student heard: its thinking block, decoded by its own heads, on a page that plays.

    With the experts' targets beside it, and for each token of an answer what it took from the audio, the block and the
    question: by attention, and by what is lost when these states are replaced. See docs/analysis.md.

    Examples:

      coat listen --run runs/a --audio clip.wav --prompt "Does the pitch rise or fall?" --out clip.html

      coat listen --run runs/a --manifest corpus.jsonl --store targets --id a1 --out a1.html

      coat listen --run runs/a --step best --manifest heldout.jsonl --store targets --sample 20 --out heard

      coat listen --run runs/a --manifest heldout.jsonl --wrong evals/a --out wrong
    """
    from coat.manifests.errors import InputError

    options = ClipOptions(sample, seed, ids, failed, longest, disagree, wrong, limit)
    if (audio is None) == (manifest is None):
        raise InputError("which clip? give --audio FILE, or --manifest with --id (or --sample, --ids, --wrong, ...)")
    if audio is not None and (store or identity or options.is_gallery or replace_by == "mean"):
        raise InputError("--audio is one file by itself: --store, --id, --replace mean and galleries need --manifest")
    if manifest is not None and (identity is not None) == options.is_gallery:
        raise InputError("which clips? give --id, or one of --sample, --ids, --failed, --longest, --disagree, --wrong")
    if options.is_gallery and png:
        raise InputError("--png is of one clip; give --id, or leave it out")
    if store is None and (failed or disagree):
        raise InputError(f"{'--failed' if failed else '--disagree'} reads targets: give --store")
    names = comma_separated(experts)
    with quiet():
        from coat.analysis.listening.session import ListeningSession
        from coat.trainer.records.checkpoint_files import parse_step

        asked = Asking(
            ListeningSession.load(run, parse_step(step)), manifest, store, tuple(prompt or ()), names, replace_by,
            None if no_evidence else seed, max_new_tokens,
        )  # fmt: skip
        if options.is_gallery:
            write_gallery(asked, options, out, workers, json_output)
        else:
            write_page(asked, audio, identity, out, png, json_output)


@dataclass(frozen=True)
class Asking:
    """How clips are heard and asked. `seed`: of the other clips; None: no evidence is looked for."""

    session: "ListeningSession"
    path: str | None
    store: str | None
    prompts: tuple[str, ...]
    experts: list[str]
    replace_by: str
    seed: int | None
    max_new_tokens: int

    @cached_property
    def manifest(self) -> "Manifest":
        from coat.manifests import Manifest

        assert self.path is not None
        return Manifest.read(self.path)

    @cached_property
    def targets(self) -> Any:
        from coat.analysis.listening.targets import StoredTargets

        return StoredTargets(self.store, self.session.experts) if self.store else None

    @cached_property
    def others(self) -> "list[Sound]":
        """Some clips of the manifest, one more than are needed: the one that is heard may be among them."""
        import numpy as np

        from coat.pipeline.inspect.choosing import with_audio

        if self.path is None or self.replace_by == "zero" or self.seed is None:
            return []
        rows = with_audio(self.manifest)
        drawn = np.random.default_rng(self.seed).permutation(rows)[: MEAN_CLIPS + 1]
        return [sound for u in self.manifest.take(np.sort(drawn)) if (sound := readable(u))]

    def of_row(self, utterance: "Utterance") -> "Listened":
        """InputError, AudioError: it cannot be heard whole."""
        found = self.targets.find(utterance) if self.targets else {}
        sound = sound_of(utterance, found)
        if self.prompts:  # what the row lists and knows is of its own prompt
            return self.listen(replace(sound, choices=(), truth=None), self.prompts)
        return self.listen(sound, (utterance.prompt,) if utterance.prompt else ())

    def listen(self, sound: "Sound", prompts: tuple[str, ...]) -> "Listened":
        others = [other for other in self.others if other.name != sound.name][:MEAN_CLIPS]
        return self.session.listen(
            sound, prompts, others=others, evidence=self.seed is not None, max_new_tokens=self.max_new_tokens,
            names=self.experts,
        )  # fmt: skip


def sound_of(utterance: "Utterance", targets: Any) -> "Sound":
    """InputError where it cannot be decoded."""
    from coat.analysis.listening.session import Sound
    from coat.manifests import InputError, decode
    from coat.manifests.audio.clip import AudioError

    if utterance.text_only:
        raise InputError(f"{utterance.id} is text alone; there is nothing to hear")
    try:
        clip = decode(utterance.audio, utterance.offset, utterance.duration)
    except AudioError as e:
        raise InputError(f"{utterance.id}: {e}") from e
    return Sound(clip, utterance.id, targets, utterance.response, utterance.choices, utterance.turns)


def readable(utterance: "Utterance") -> "Sound | None":
    from coat.manifests import InputError

    try:
        return sound_of(utterance, {})
    except InputError:
        return None


def write_page(
    asked: Asking, audio: str | None, identity: str | None, out: str, png: str | None, json_output: bool
) -> None:
    from coat.analysis.listening.page import listening_figure, listening_page
    from coat.analysis.listening.session import Sound
    from coat.manifests import storage
    from coat.pipeline.inspect.selection import find_utterance
    from coat.trainer.generation.generate import read_clip

    if audio is not None:
        listened = asked.listen(Sound(read_clip(audio)[0], audio), asked.prompts)
    else:
        assert identity is not None
        listened = asked.of_row(find_utterance(asked.manifest, identity))
    documents = {out: listening_page(listened)} | ({png: listening_figure(listened)} if png else {})
    for path, document in documents.items():
        storage.write_bytes(path, document)
    written = {path: len(document) for path, document in documents.items()}
    if json_output:
        typer.echo(json.dumps({**listened.to_dict(), "written": written}, indent=2, ensure_ascii=False))
        return
    show(listened)
    for path, size in written.items():
        typer.echo(f"{path}: {bytes_text(size)}")


def show(listened: "Listened") -> None:
    from coat.analysis.listening.agreement import agreement_text

    if listened.note:
        typer.echo(listened.note, err=True)
    if listened.heard:
        rows = [
            [h.expert, h.panel.frames, agreement_text(h.agreement) or h.panel.problem or "-"] for h in listened.heard
        ]
        table("Heard", ["expert", "frames", "agreement in this clip"], rows)
    for answer in listened.answers:
        lost = ", ".join(f"{role} {nats:+.2f}" for role, nats in answer.effects().items())
        typer.echo(f"{answer.prompt}\n  {answer.answer or '(nothing)'}")
        if lost:
            typer.echo(f"  nats lost when states are replaced by {answer.replaced_by}: {lost}")
        if answer.why_no_rollout:
            typer.echo(f"  no attention rollout: {answer.why_no_rollout}", err=True)


def write_gallery(asked: Asking, options: ClipOptions, out: str, workers: int | None, json_output: bool) -> None:
    from coat.analysis.listening.gallery import listening_gallery
    from coat.cli.progress import progress
    from coat.drawing.galleries.gallery import check_out
    from coat.manifests import InputError
    from coat.pipeline.inspect.selection import select_target_sets

    check_out(out)
    targets = list(select_target_sets(asked.store, [])) if asked.store else []
    with progress(None, "clips", "comparing pitches", json_output or options.disagree is None) as advance:
        chosen, measure, left_out = options.choose(asked.manifest, targets, asked.store, advance)
    skipped: dict[str, str] = {}

    def heard() -> Iterator["Listened"]:
        for one in chosen:
            utterance = asked.manifest[one.position]
            try:
                yield asked.of_row(utterance)
            except InputError as e:  # this clip cannot be heard; others can
                skipped[utterance.id] = str(e)
                advance(1)

    about = f"{len(chosen)} clips of {asked.path}, heard by {asked.session.run}"
    with progress(len(chosen), "clips", "listening", json_output) as advance:
        by = {asked.manifest[one.position].id: {measure: one.value} for one in chosen} if measure else {}
        pages = listening_gallery(heard(), out, about, page_workers(workers, len(chosen)), by, advance)
    if json_output:
        rows = [{"file": page.file, "status": page.status, **one.to_dict()} for page, one in pages]
        found = {"out": out, "left_out": left_out, "skipped": skipped, "pages": rows}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if asked.session.note:
        typer.echo(asked.session.note, err=True)
    for identity, why in skipped.items():
        typer.echo(f"{identity} is left out: {why}", err=True)
    typer.echo(f"{out}/index.html: {len(pages)} pages" + (f"; {left_out} more: --limit" if left_out else ""))
