"""The code of a model card, by who serves the export. The tests and `make serve-check` run it as it stands."""

from coat.trainer.export.targets import Target
from coat.trainer.export.template import prompt_pieces
from coat.trainer.generation.generate import Trained
from coat.trainer.students.four_bit import ELSEWHERE


def usage(trained: Trained, kind: str, base: str | None, target: Target | None) -> str:
    here = in_transformers(trained, kind, base)
    order = "Audio goes before the text, one user turn to an answer, as in training."
    if target in ("vllm", "sglang"):
        return f"{served(trained, target)}\n\n{order}\n\n{raw_prompts(trained)}\n\n### In transformers\n\n{here}"
    return f"{here}\n\n{order}" + (f"\n\n{raw_prompts(trained)}" if trained.block.ids_K else "")


def in_transformers(trained: Trained, kind: str, base: str | None) -> str:
    student = trained.student
    loading = LOAD_MODEL
    if kind == "adapter":
        loading = LOAD_ADAPTER.replace("ROWS", str(student.model.get_input_embeddings().weight.shape[0]))
        loading = loading.replace("BASE_ID", base or "path/to/the/base/model")
    if kind == "adapter" and trained.config.student.quantize:
        loading = loading.replace("import torch\n", FOUR_BIT_IMPORT).replace("dtype=torch.DTYPE)", FOUR_BIT)
    code = (loading + ASK).replace("STUDENT", student.model_class).replace("DTYPE", trained.config.student.dtype)
    return f"```python\n{code}```"


def served(trained: Trained, target: Target) -> str:
    """The server's command, and a question by OpenAI's client."""
    command = COMMANDS[target].replace("DTYPE", trained.config.student.dtype)
    options = SERVER_OPTIONS.get((target, trained.student.model_type), "")
    note = NOTES.get((target, trained.student.model_type), "")
    return f"```sh\n{command}{options}\n```\n\n```python\n{CLIENT.replace('PORT', PORTS[target])}```" + (
        f"\n\n{note}" if note else ""
    )


def raw_prompts(trained: Trained) -> str:
    """For whoever writes prompts by hand."""
    if not trained.block.ids_K:
        return "It has no thinking block."
    pieces = prompt_pieces(trained.student, trained.block)
    where = f"behind the last `{pieces['behind']}`" if pieces["behind"] else "at the end of the prompt"
    return (
        f"The chat template puts the block {where}. A prompt that goes past the template must have it there, too; "
        "`thinking.json` has the block's text and ids, and this whole prompt:\n\n"
        f"```text\n{pieces['prompt']}\n```"
    )


LOAD_MODEL = """import torch
from transformers import AutoProcessor, STUDENT

HERE = "."  # this folder, or its id on the hub
processor = AutoProcessor.from_pretrained(HERE)
model = STUDENT.from_pretrained(HERE, dtype=torch.DTYPE)
"""

LOAD_ADAPTER = """import torch
from peft import PeftModel
from transformers import AutoProcessor, GenerationConfig, STUDENT

HERE = "."  # this folder, or its id on the hub
BASE = "BASE_ID"
processor = AutoProcessor.from_pretrained(HERE)
model = STUDENT.from_pretrained(BASE, dtype=torch.DTYPE)
model.resize_token_embeddings(ROWS, mean_resizing=False)  # before the adapter: it brings the rows of the think tokens
model.generation_config = GenerationConfig.from_pretrained(HERE)
model = PeftModel.from_pretrained(model, HERE)
"""

# The base as the adapter was trained on it. What is not the language model's layers stays as it is.
FOUR_BIT_IMPORT = "import torch\nimport transformers\n"
FOUR_BIT = """dtype=torch.DTYPE, quantization_config=transformers.BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.DTYPE,
    llm_int8_skip_modules=[r"PATTERN"],
))""".replace("PATTERN", ELSEWHERE)

ASK = """
content = [{"type": "audio", "audio": "clip.wav"}, {"type": "text", "text": "What is heard?"}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
).to(model.device)
with torch.inference_mode():
    ids = model.generate(**inputs, max_new_tokens=64)
print(processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
"""

PORTS = {"vllm": "8000", "sglang": "30000"}
COMMANDS = {
    "vllm": "vllm serve . --dtype DTYPE --served-model-name coat",
    "sglang": "sglang serve --model-path . --dtype DTYPE --served-model-name coat --enable-multimodal",
}
SERVER_OPTIONS = {  # it was trained on audio and text: what a server keeps for pictures is saved
    ("vllm", "qwen2_5_omni"): """ --limit-mm-per-prompt '{"image": 0, "video": 0}'""",
    ("vllm", "qwen3_omni_moe"): """ --limit-mm-per-prompt '{"image": 0, "video": 0}'""",
}
NOTES = {
    ("sglang", "qwen2_audio"): (
        "SGLang's Qwen2-Audio gives its audio tower no mask: of audio under 30 s it attends to the padding, too, and "
        "may answer otherwise than transformers and vLLM. `coat serve-check` says whether it does."
    ),
}
CLIENT = """import base64
from pathlib import Path
from openai import OpenAI

client = OpenAI(base_url="http://localhost:PORT/v1", api_key="none")
audio = {"data": base64.b64encode(Path("clip.wav").read_bytes()).decode(), "format": "wav"}
content = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": "What is heard?"}]
answer = client.chat.completions.create(
    model="coat", messages=[{"role": "user", "content": content}], temperature=0, max_tokens=64
)
print(answer.choices[0].message.content)
"""
