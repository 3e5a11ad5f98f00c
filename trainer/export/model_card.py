"""The model card of an export: README.md with the hub's front matter.

It says what was trained on what, and how it is loaded; nothing of the machine it was trained on: no path, no URL.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from coat.manifests import ShardIndex
from coat.trainer.config.train_config import TrainConfig, without_none
from coat.trainer.export.targets import Target
from coat.trainer.export.usage import usage
from coat.trainer.generation.generate import Trained
from coat.trainer.model.experts import experts_of
from coat.trainer.model.thinking import is_tied
from coat.trainer.run_folder import EVALUATION_FILE, METRICS_FILE, RunFolder, read_rows

PAPER = "[Continuous Audio Thinking](https://arxiv.org/abs/2606.18273)"
FIGURES = re.compile(r"(loss|ce|distill/.*|samples|audio_hours|accuracy.*|chance|unparsed.*)$")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class CardFigure:
    """One score, for the hub. `value` as a share."""

    benchmark: str
    version: str
    source: str
    metric: str
    rule: str
    value: float


@dataclass(frozen=True)
class CardResults:
    """Of evaluations of the run: Markdown, and the figures in it."""

    text: str
    figures: tuple[CardFigure, ...]


def hub_id(path: str) -> str | None:
    """`owner/name`, where that is what it is: None for a folder of this machine."""
    return path if HUB_ID.fullmatch(path) and not Path(path).exists() else None


def model_card(
    trained: Trained,
    run: Path,
    kind: str,
    base: str | None,
    results: CardResults | None = None,
    target: Target | None = None,
) -> str:
    """Markdown; the code under "Use" is what the tests run. The student has its template already."""
    folder, config = RunFolder(run), trained.config
    parts = [
        front_matter(kind, base, trained.student.model_type, results.figures if results else ()),
        heading(trained, kind, base, bool(experts_of(config, folder.index))),
        f"## Use\n\n{usage(trained, kind, base, target)}",
        f"## Data\n\n{data_section(folder.index)}",
        f"## Targets\n\n{targets_section(config, folder.index)}",
        *([f"## Evaluation\n\n{results.text}"] if results else []),
        f"## Figures\n\n{figures_section(run, trained.step)}",
        f"## Config\n\n```toml\n{public_config(config)}```",
        f"## Licence\n\n{licence_section(kind, base)}",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(kind: str, base: str | None, model_type: str, figures: Sequence[CardFigure] = ()) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    relation: dict[str, Any] = {}
    if base:
        relation["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    if figures:
        relation["model_name"] = f"{base or model_type} with Continuous Audio Thinking"
        relation["eval_results"] = [
            EvalResult(
                task_type="audio-text-to-text", dataset_type=f.benchmark, dataset_name=f"{f.benchmark} {f.version}",
                metric_type=f.metric, metric_name=f"{f.metric} ({f.rule} rule)", metric_value=f.value,
                source_name=f.benchmark, source_url=f.source,
            )
            for f in figures
        ]  # fmt: skip
    card = ModelCardData(
        base_model=base,
        library_name="peft" if kind == "adapter" else "transformers",
        license="other",
        license_name="that-of-the-base-model",
        pipeline_tag="audio-text-to-text",
        tags=["continuous-audio-thinking", "coat", "audio", model_type],
        **relation,
    )
    return f"---\n{card.to_yaml()}\n---"


def heading(trained: Trained, kind: str, base: str | None, distilled: bool) -> str:
    block, student = trained.block, trained.student
    whole = ", weights trained whole" if trained.config.student.train else ""
    what = f"An adapter (LoRA{whole} and rows of think tokens) for" if kind == "adapter" else "A fine-tuned form of"
    where = {"after_audio": "behind the audio", "before_response": "behind the whole prompt"}[block.config.placement]
    positions = (
        f"A block of {len(block.ids_K)} think positions stands {where}; the chat template puts it there. It is read in "
        "the one prefill, and adds nothing to decoding. Its tokens mean nothing as text, and are suppressed in answers"
        f"{by_config_alone(trained, kind)}."
        if block.ids_K
        else "It has no thinking block: a baseline."
    )
    shortest = student.min_samples / student.sample_rate
    method = ": frames of frozen audio experts were distilled into think positions" if distilled else ""
    return (
        f"# {base or student.model_type} with Continuous Audio Thinking\n\n"
        f"{what} {base or f'a {student.model_type} model'}, trained by coat as in {PAPER}{method}. {positions}\n\n"
        f"It hears {shortest:.3f} to {student.max_seconds:g} s of audio at {student.sample_rate} Hz: processors may "
        "cut or drop other audio without a word."
    )


def by_config_alone(trained: Trained, kind: str) -> str:
    """Of an adapter to a model whose output embeddings are the input's, rows of think tokens included."""
    if kind == "model" or not is_tied(trained.student.model):
        return ""
    return (
        ": by `suppress_tokens` of generation_config.json alone. What serves it and does not know that may say them; "
        "export the run with `--merged` for such a server"
    )


def data_section(index: ShardIndex) -> str:
    return (
        f"{index.samples} samples, {index.seconds / 3600:.2f} hours of audio in {len(index.shards)} shards, "
        f"digest `{index.identity}`."
    )


def targets_section(config: TrainConfig, index: ShardIndex) -> str:
    experts = experts_of(config, index)
    if not experts:
        return "None were distilled."
    rows = [
        [name, e.spec.family, e.spec.kind, f"{e.spec.rate_hz:g}", e.spec.dim, public_name(e.spec.checkpoint)]
        + [f"`{e.spec.fingerprint}`", e.frames]
        for name, e in experts.items()
    ]
    return table(["expert", "family", "kind", "rate (Hz)", "dim", "checkpoint", "fingerprint", "frames"], rows)


def public_name(checkpoint: str) -> str:
    """A checkpoint's name, unless it is a place: a path or a URL."""
    is_place = re.match(r"[/.~]|\w:", checkpoint) or re.search(r"://|@|\\", checkpoint)
    return "(a local one)" if is_place or checkpoint.count("/") > 1 or Path(checkpoint).exists() else checkpoint


def figures_section(run: Path, step: int | None) -> str:
    """Of evaluation.jsonl and metrics.jsonl, the last lines up to the step that is exported."""
    sections = []
    for name, title in ((EVALUATION_FILE, "held-out samples"), (METRICS_FILE, "training, since the line before")):
        rows = read_rows(run / name) if (run / name).exists() else []
        rows = [row for row in rows if step is None or row["step"] <= step]
        if rows:
            values = [[k, f"{v:.4g}"] for k, v in rows[-1].items() if FIGURES.match(k)]
            sections.append(f"Step {rows[-1]['step']}, {title}:\n\n{table(['figure', 'value'], values)}")
    return "\n\n".join(sections) or "None were written."


def public_config(config: TrainConfig) -> str:
    """The run's config, without paths, URLs and accounts."""
    hidden = {
        "student": ("path",),
        "data": ("shards", "exclude_file"),
        "evaluation": ("shards",),
        "run": ("out", "trackers", "project"),
    }
    data = without_none(config.to_dict())
    for section, keys in hidden.items():
        for key in keys:
            data[section].pop(key, None)
    for one in data["data"]["sets"]:
        del one["shards"]
    return tomli_w.dumps(data)


def licence_section(kind: str, base: str | None) -> str:
    name = base or "the base model"
    derived = "It does nothing without that model" if kind == "adapter" else "It is a derivative of that model"
    return (
        f"{derived}: the licence of {name} applies, and so may those of the data and of the experts whose outputs were "
        "distilled. This card grants nothing."
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines: list[Mapping | Sequence[Any]] = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
