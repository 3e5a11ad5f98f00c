# %% [markdown]
# # Train and listen
#
# A tiny student learns with a thinking block, and is asked what it heard. It needs what `make quickstart` left in
# `runs/quickstart`, and takes a minute or two.
# Run it from the folder of the checkout, as a notebook or by `python docs/notebooks/train_and_listen.py`.

# %%
import os
from pathlib import Path

import matplotlib

from coat.analysis.listening.page import listening_figure, listening_page
from coat.analysis.listening.session import ListeningSession, Sound
from coat.analysis.listening.targets import StoredTargets
from coat.manifests import Manifest, decode
from coat.trainer import TrainConfig, load_run, train
from coat.trainer.run_folder import read_metrics

matplotlib.use("Agg")  # leave this line out in Jupyter: figures then show below their cells
import matplotlib.pyplot as plt

QUICKSTART = Path("runs/quickstart")
HERE = Path("runs/notebooks/train")
STEPS = int(os.environ.get("COAT_NOTEBOOK_STEPS", "60"))  # of each stage; the quickstart takes 75 and 250

# %% [markdown]
# ## The config
#
# The quickstart's own, with fewer steps and another place. Any key may be laid over a file.

# %%
config = TrainConfig.read(
    str(QUICKSTART / "run" / "config.toml"),
    [f"run.out={HERE / 'run'}", f"stages.0.steps={STEPS}", f"stages.1.steps={STEPS}", "run.seed=2", "run.log_every=1"],
)
print(config.thinking.count, "positions;", [(s.name, s.steps, s.ce, s.distill) for s in config.stages])

# %% [markdown]
# ## Train
#
# `train` goes on where a run stopped. Called again when it is finished, it does nothing.

# %%
result = train(config)
print("finished:", result.finished, "at step", result.step)

# %%
rows = [row for row in read_metrics(HERE / "run") if "ce" in row]
figure, axis = plt.subplots(figsize=(9, 3), constrained_layout=True)
for name in ("ce", "distill/pitch", "distill/vad", "distill/mel"):
    if name in rows[0]:
        axis.plot([row["step"] for row in rows], [row[name] / rows[0][name] for row in rows], label=name)
axis.set(xlabel="step", ylabel="loss / first loss", ylim=(0, None))
axis.legend()
figure.savefig(HERE / "losses.png", dpi=110)

# %% [markdown]
# ![The losses of the answer and of three experts, by step](losses.png)
#
# ## Ask

# %%
student = load_run(HERE / "run")
heldout = Manifest.read(str(QUICKSTART / "corpus" / "heldout.jsonl"))
for row in list(heldout)[:4]:
    assert row.prompt is not None
    print(f"{row.prompt} {student.ask(row.audio, row.prompt)!r}, right is {row.response!r}")

# %% [markdown]
# ## Listen
#
# The run's heads say what they read off the block's states, at the frame times of each expert. Beside it stands
# what the expert heard. This is the page of `coat listen`.

# %%
session = ListeningSession.load(str(HERE / "run"))
row = next(u for u in heldout if u.extra["task"] == "glide")
targets = StoredTargets(str(QUICKSTART / "targets"), session.experts).find(row)
assert row.prompt is not None
sound = Sound(decode(row.audio), row.id, targets, row.response)
listened = session.listen(sound, [row.prompt], evidence=False, names=["pitch", "vad", "mel"])
for heard in listened.heard:
    print(heard.expert, {name: value for name, value in heard.agreement.items() if value is not None})
(HERE / "heard.html").write_bytes(listening_page(listened))
(HERE / "heard.png").write_bytes(listening_figure(listened))

# %% [markdown]
# ![What the block heard in a gliding tone, over what the experts heard](heard.png)
#
# Blue is decoded from the block, orange is the expert's target. After so few steps the block knows when it
# sounds, and little of the pitch.
#
# Next: [evaluate and compare](evaluate_and_compare.md). What such a picture can and cannot show: [What a student
# heard, and what it used](../analysis.md).
