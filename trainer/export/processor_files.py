"""Tokenizer and processor as version 4 of transformers writes them; version 5 reads these, too, and not the other way.

Version 5 has one processor_config.json for all of a processor's parts, a tokenizer class that version 4 does not know,
and special tokens in a list where version 4 wants names.
"""

from pathlib import Path
from typing import Any

from coat.manifests import RunError, storage
from coat.trainer.students.base import Student

PARTS = ("feature_extractor", "image_processor", "video_processor")  # of a processor, with files of their own in 4
VIDEO_FILE = "video_preprocessor_config.json"
FILE = "preprocessor_config.json"
GENERIC = "PreTrainedTokenizerFast"  # it takes tokenizer.json as it is, in both versions
# Version 5 has one class for what version 4 calls so.
KNOWN_CLASSES = {"TokenizersBackend": GENERIC, "PreTrainedTokenizerFast": GENERIC}
TRIED = "Naïve café: 3.14 m/s?\n\n  Ünïcode  ｆｕｌｌ ① <tag> don't\t日本語"


def write_processor(student: Student, folder: Path) -> None:
    """All files of the student's processor. RunError: read again, it gives other ids."""
    student.processor.save_pretrained(folder)
    split_processor_config(student, folder)
    rewrite_tokenizer_config(student, folder)
    check_tokenizer(student, folder)


def split_processor_config(student: Student, folder: Path) -> None:
    file = folder / "processor_config.json"
    settings = storage.read_json(str(file))
    parts = {name: settings.pop(name) for name in PARTS if name in settings}
    video = parts.pop("video_processor", None)
    both: dict[str, Any] = {}
    for part in reversed(parts.values()):  # the feature extractor's last: some keys are of both
        both |= part
    both["processor_class"] = settings["processor_class"] = student.processor_class
    storage.write_bytes(str(folder / FILE), storage.to_json(both))
    if video:
        video["processor_class"] = student.processor_class
        storage.write_bytes(str(folder / VIDEO_FILE), storage.to_json(video))
    storage.write_bytes(str(file), storage.to_json(settings))


def rewrite_tokenizer_config(student: Student, folder: Path) -> None:
    """Special tokens by name (audio_token, ...) and others in a list: version 4 reads the two under these two keys."""
    file = folder / "tokenizer_config.json"
    settings = storage.read_json(str(file))
    name = settings["tokenizer_class"]
    settings["tokenizer_class"] = KNOWN_CLASSES.get(name, name)
    settings["model_input_names"] = ["input_ids", "attention_mask"]  # version 4's generic class adds types of tokens
    named, extra = settings.pop("model_specific_special_tokens", {}), settings.pop("extra_special_tokens", None)
    named |= extra if isinstance(extra, dict) else {}
    if named:
        settings["extra_special_tokens"] = named
    if isinstance(extra, list):
        settings["additional_special_tokens"] = extra
    storage.write_bytes(str(file), storage.to_json(settings))


def check_tokenizer(student: Student, folder: Path) -> None:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder)
    texts = [TRIED, *student.chat.added_tokens()[0]]
    for text in texts:
        if found(text)["input_ids"] != student.tokenizer(text)["input_ids"]:
            raise RunError(
                f"{student.source}: its tokenizer cannot be written for other software: of {text[:40]!r} it makes "
                "other ids when it is read again; export without --for, for transformers 5"
            )
