"""The code of model cards in a process that has no coat."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Runs the code of each card as it stands, but for names of folders and TOKENS, in a process that has no coat.
SERVER = """
import json, re, sys, warnings
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "coat":
            raise ModuleNotFoundError(f"{name} is refused")

sys.meta_path.insert(0, Refuse())
try:
    import coat
except ModuleNotFoundError:
    pass
else:
    sys.exit("coat can be imported")
warnings.simplefilter("ignore")
for line in sys.stdin:
    folder, base = json.loads(line)
    (code,) = re.findall("```python\\n(.*?)```", (Path(folder) / "README.md").read_text(), re.DOTALL)
    names = {}
    code = code.replace('HERE = "."', f"HERE = {folder!r}").replace("path/to/the/base/model", base)
    exec(code.replace("max_new_tokens=64", "max_new_tokens=12"), names)
    new = names["ids"][0, names["inputs"]["input_ids"].shape[1]:].tolist()
    print("TOKENS", json.dumps(new))
"""


def served(asked: list[tuple[Path, str]], clip: Path) -> list[list[int]]:
    """Tokens that the card's code of each export gives for `clip`, a file clip.wav; with each export its base."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVER],
        input="\n".join(json.dumps([str(folder), base]) for folder, base in asked),
        capture_output=True,
        text=True,
        cwd=clip.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line.removeprefix("TOKENS ")) for line in done.stdout.splitlines() if line[:7] == "TOKENS "]


def edited(run: Path, copy: Path, old: str, new: str) -> Path:
    shutil.copytree(run, copy)
    text = (copy / "config.toml").read_text()
    assert old in text
    (copy / "config.toml").write_text(text.replace(old, new))
    return copy
