"""Export a run so that whoever serves it needs nothing of coat: the block is in the chat template and the tokenizer.

OUT/README.md               the model card, with the code that loads it
OUT/adapter_config.json, adapter_model.safetensors   the adapter and the rows of the think tokens, or
OUT/config.json, model.safetensors                   the whole model, the adapter merged into it
OUT/generation_config.json  greedy, ends with a turn, never says a think token
OUT/chat_template.jinja, tokenizer.json, processor_config.json, ...
"""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from coat.manifests import InputError, RunError, storage
from coat.trainer.generation.generate import Trained, generation_config
from coat.trainer.generation.model_card import CardResults, hub_id, model_card
from coat.trainer.generation.run_student import load_run, save_adapter
from coat.trainer.model.thinking import ThinkingBlock, is_tied
from coat.trainer.model.trained import choose_trained, unfrozen
from coat.trainer.records.checkpoint_files import Step
from coat.trainer.students.base import Student
from coat.trainer.students.four_bit import dequantized
from coat.trainer.students.registry import load_student

TRIAL_SECONDS, TRIAL_PROMPT = 1.0, "What is heard?"  # what the written template is tried with


@dataclass(frozen=True)
class Export:
    path: Path
    kind: str  # adapter or model
    base: str | None  # hub id of the base model; None: not known
    bytes: int
    positions: int  # of the block, begin and end not counted
    step: int  # of the run


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    step: Step = None,
    merged: bool = False,
    positions: int | None = None,
    base: str | None = None,
    results: CardResults | None = None,
) -> Export:
    """Write the student of a run to `out`: its adapter, or (`merged`, `lora.full`) the whole model.

    `step` is that of a checkpoint, or "best"; None: the finished student, or else the newest checkpoint.

    `positions` is how many think positions the template has, where the run's follow the length of the audio
    (`thinking.rate_hz`); `base` the hub id of the base model, where the run has a folder of this machine; `results`
    what its card says of evaluations.
    InputError: `out` is not empty, or an option does not fit. RunError: the checkpoint is not whole, or the export
    cannot be written.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: not an empty folder; choose another --out")
    if base is not None and hub_id(base) is None:
        raise InputError(f"--base {base}: not the id of a model on the hub; expected owner/name")
    trained = load_run(run, device="cpu", step=step)
    block = fixed_block(trained.block, positions)
    fixed = Trained(trained.student, block, trained.config, trained.step)
    kind = "model" if merged or trained.student.peft_model is None else "adapter"
    base = base or hub_id(trained.config.student.path)
    expected = trial_ids(fixed)  # before its template is changed
    partial = target.parent / f".{target.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
        partial.mkdir(parents=True)
        write(fixed, trained.block, partial, kind, base)
        check_template(fixed.student, expected, partial)
        (partial / "README.md").write_text(model_card(fixed, Path(run), kind, base, results), encoding="utf-8")
        size = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
        os.replace(partial, target)  # onto an empty folder, or nothing
    except OSError as e:
        raise RunError(f"{target}: cannot be written ({e.strerror or e}); see to that, and export again") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Export(target, kind, base, size, len(block.ids_K), trained.step or 0)


def fixed_block(block: ThinkingBlock, positions: int | None) -> ThinkingBlock:
    """The block as a template can hold it: of one length."""
    most = len(block.ids_K)
    if block.config.rate_hz is None:
        if positions not in (None, most):
            raise InputError(f"--positions {positions}: this run has {most} think positions, and was trained with them")
        return block
    if positions is None or not 1 <= positions <= most:
        raise InputError(
            f"thinking.rate_hz {block.config.rate_hz:g}: the block follows the length of the audio, which a chat "
            f"template cannot; give --positions N (1 to {most}): right for audio of N / {block.config.rate_hz:g} s"
        )
    config = block.config.model_copy(update={"rate_hz": None, "count": positions})
    return replace(block, config=config, ids_K=block.ids_K[:positions])


def write(trained: Trained, whole: ThinkingBlock, folder: Path, kind: str, base: str | None) -> None:
    """All but the card. The student's template is changed. `whole`: the block with all its tokens, of which none is
    ever said.
    """
    student = trained.student
    generation = generation_config(student, whole)
    if kind == "adapter":
        save_adapter(student, folder)
        changed = {"base_model_name_or_path": base, **add_whole_modules(student, folder)}
        settings = storage.read_json(str(folder / "adapter_config.json"))  # peft writes where the base was loaded from
        storage.write_bytes(str(folder / "adapter_config.json"), storage.to_json({**settings, **changed}))
    else:
        if trained.config.student.quantize:
            student = in_full_precision(trained, whole)
        if not is_tied(student.model):
            own_output(student.model)  # whatever its config said
        model = student.model if student.peft_model is None else student.peft_model.merge_and_unload()
        model.generation_config = generation
        never_say(model, whole)
        model.save_pretrained(folder)
    generation.save_pretrained(folder)
    write_template(student, trained.block)
    student.processor.save_pretrained(folder)


def in_full_precision(trained: Trained, block: ThinkingBlock) -> Student:
    """The same student with the weights that its 4 bits stand for, in `student.dtype`: adapters merge into these
    without being rounded to 4 bits themselves.
    """
    config = trained.config
    student = load_student(config.student.path, config.student.dtype)
    as_long = block.config.model_copy(update={"rate_hz": None, "count": len(block.ids_K)})
    choose_trained(student, ThinkingBlock.add_to(student, as_long), config)
    weights = dict(trained.student.model.named_parameters())
    modules = dict(trained.student.model.named_modules())
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            owner = modules[name.rpartition(".")[0]]
            is_four_bit = name.endswith(".weight") and getattr(owner.weight, "quant_state", None) is not None
            parameter.copy_(dequantized(owner) if is_four_bit else weights[name])
    return student


def add_whole_modules(student: Student, folder: Path) -> dict[str, Any]:
    """Add what `student.train` names to an adapter, as peft's `modules_to_save`: what adapter_config.json says of it.

    peft takes whole modules: of one that is trained in part, the rest is added as it is.
    """
    names = sorted({name.rpartition(".")[0] for name in unfrozen(student.model)})
    if not names:
        return {}
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in names:
        for key, tensor in student.model.get_submodule(name).state_dict().items():
            tensors[f"base_model.model.{name}.{key}"] = tensor.detach().cpu().contiguous()
    save_file(tensors, file, {"format": "pt"})
    return {"modules_to_save": names}


@torch.no_grad()
def never_say(model: Any, block: ThinkingBlock) -> None:
    """Let no server say a think token, though it may not know `suppress_tokens`: of a token whose output row is the
    mean of the others' the logit is the mean of theirs, and never the largest.

    Where output embeddings are the input's, that row is what the block is read by: they become a matrix of their own.
    """
    if not block.new_ids:
        return
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    if is_tied(model):
        output.weight = nn.Parameter(embeddings.weight.detach().clone(), requires_grad=False)
        own_output(model)
    others = torch.ones(len(output.weight), dtype=torch.bool)
    others[block.new_ids] = False
    output.weight[block.new_ids] = output.weight[others].float().mean(0).to(output.weight.dtype)


def own_output(model: Any) -> None:
    """Its config, and what transformers goes by, say that output embeddings are a matrix of their own."""
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def write_template(student: Student, block: ThinkingBlock) -> None:
    if not block.ids_K:
        return
    closing = closing_token(student)
    texts = student.tokenizer.convert_ids_to_tokens([block.begin_id, *block.ids_K, block.end_id])
    templates = student.processor.chat_template
    written = {
        name: with_block(template, closing, "".join(texts), block.config.placement)
        for name, template in (templates.items() if isinstance(templates, dict) else [("default", templates)])
    }
    student.processor.chat_template = written if isinstance(templates, dict) else written["default"]
    student.tokenizer.chat_template = student.processor.chat_template  # servers read either


def closing_token(student: Student) -> str:
    """What the audio ends with in the text: its last token, or the placeholder itself."""
    prefix = student.prefix(trial_sound(student), "?")
    return student.tokenizer.convert_ids_to_tokens(prefix.ids[prefix.audio_end - 1])


def with_block(template: str, closing: str, block: str, placement: str) -> str:
    """The chat template with the block in its text: behind the last `closing`, or (`before_response`) at the end.

    The template itself stays as it is, whatever it is made of: its text is set aside, and the block put into that.
    `+` keeps white space (servers render with trim_blocks and lstrip_blocks); a template's last newline is never shown.
    A chat without audio has no block.
    """
    closing, block = json.dumps(closing), json.dumps(block)
    chat = "{% set chat +%}" + template.removesuffix("\n") + "{%+ endset %}"
    if placement == "after_audio":
        parts = f"{{% set parts = chat.rpartition({closing}) %}}"
        return f"{chat}{parts}{{{{ parts[0] ~ parts[1] ~ ({block} if parts[1] else '') ~ parts[2] }}}}"
    return f"{chat}{{{{ chat ~ ({block} if add_generation_prompt and {closing} in chat else '') }}}}"


def trial_ids(trained: Trained) -> list[int]:
    """A prompt with audio and block, as the student was trained."""
    audio = (trial_sound(trained.student), trained.student.sample_rate)
    return trained.inputs([(audio, TRIAL_PROMPT, ())])["input_ids"][0].tolist()


def check_template(student: Student, expected: list[int], folder: Path) -> None:
    """RunError where the written template gives other ids."""
    from transformers import AutoProcessor

    content = [{"type": "audio", "audio": trial_sound(student)}, {"type": "text", "text": TRIAL_PROMPT}]
    ids: Any = AutoProcessor.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )["input_ids"][0]  # fmt: skip
    if ids.tolist() != expected:
        raise RunError(
            f"{student.source}: the block cannot be written into its chat template: plain transformers reads "
            f"{student.tokenizer.decode(ids)!r}"
        )


def trial_sound(student: Student) -> np.ndarray:
    """A low noise, `[S]`."""
    samples = min(max(round(TRIAL_SECONDS * student.sample_rate), student.min_samples), student.max_samples)
    return np.random.default_rng(0).normal(0.0, 0.01, samples).astype(np.float32)
