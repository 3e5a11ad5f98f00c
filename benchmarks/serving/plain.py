"""Run by a Python that has transformers and no coat: an export answers questions.

    python plain.py EXPORT MODEL_CLASS < questions.json

Questions: [{"audio": samples as base64 of float32, "prompt": text}]; prints {"version", "tokens": [[...]]}.
"""

import base64
import json
import sys
import warnings

import numpy as np


class Refuse:
    """Of `coat` nothing can be imported, wherever this Python would find it."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "coat":
            raise ModuleNotFoundError(f"{name} is refused")


def main(folder: str, model_class: str, new_tokens: int) -> None:
    import torch
    import transformers

    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = getattr(transformers, model_class).from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for question in json.load(sys.stdin):
        samples = np.frombuffer(base64.b64decode(question["audio"]), np.float32)
        content = [{"type": "audio", "audio": samples}, {"type": "text", "text": question["prompt"]}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=new_tokens)
        start = inputs["input_ids"].shape[1]
        found.append({"prompt": inputs["input_ids"][0].tolist(), "tokens": ids[0, start:].tolist()})
    print("FOUND", json.dumps({"version": transformers.__version__, "answers": found}))


if __name__ == "__main__":
    sys.meta_path.insert(0, Refuse())
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
