"""The thinking block in the chat template: every server renders it, and then needs nothing of coat.

B batch, T positions, S samples of audio.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from coat.manifests import RunError
from coat.trainer.generation.generate import Trained
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student

TRIAL_SECONDS, TRIAL_PROMPT = 1.0, "What is heard?"  # what the written template is tried with


def write_template(student: Student, block: ThinkingBlock) -> None:
    if not block.ids_K:
        return
    closing, text = closing_token(student), block_text(student, block)
    templates = student.processor.chat_template
    written = {
        name: with_block(template, closing, text, block.config.placement)
        for name, template in (templates.items() if isinstance(templates, dict) else [("default", templates)])
    }
    student.processor.chat_template = written if isinstance(templates, dict) else written["default"]
    student.tokenizer.chat_template = student.processor.chat_template  # servers read either


def block_text(student: Student, block: ThinkingBlock) -> str:
    """Empty: it has none."""
    return "".join(student.tokenizer.convert_ids_to_tokens(block.new_ids))


def prompt_pieces(student: Student, block: ThinkingBlock) -> dict[str, Any]:
    """For prompts that go past the chat template: the block's text, where it goes, and a whole prompt. After
    `write_template`.
    """
    content = [{"type": "audio", "audio": "audio"}, {"type": "text", "text": TRIAL_PROMPT}]
    chat = student.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return {
        "block": block_text(student, block),
        "placement": block.config.placement,
        "behind": closing_token(student) if block.config.placement == "after_audio" else None,
        "ids": block.new_ids,
        "prompt": chat.replace(TRIAL_PROMPT, "{question}"),
    }


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
