# %% [markdown]
# # Extract and look
#
# A small corpus, two experts, and what they hear in it. Everything is made here, in `runs/notebooks`: no
# download, no GPU, under a minute.
# Open this file as a notebook (Jupyter with jupytext, VS Code, PyCharm), or run it: `python
# docs/notebooks/extract_and_look.py`.

# %%
from pathlib import Path

import matplotlib
import numpy as np

from coat.manifests import Manifest, decode
from coat.manifests.corpus.synthesis import make_corpus
from coat.pipeline import Resources, TargetStore, extract

matplotlib.use("Agg")  # leave this line out in Jupyter: figures then show below their cells
import matplotlib.pyplot as plt

HERE = Path("runs/notebooks/extract")

# %% [markdown]
# ## A corpus whose truth is known
#
# `make_corpus` synthesises clips of two to three seconds, with a question each. A row says what is in the clip:
# here `f0`, the pitch by time.

# %%
if not (HERE / "corpus").exists():
    make_corpus(str(HERE / "corpus"), seed=0, clips=42)
manifest = Manifest.read(str(HERE / "corpus" / "manifest.jsonl"))
row = next(u for u in manifest if u.extra["task"] == "glide")
print(len(manifest), "clips;", row.id, "is asked:", row.prompt, "-", row.response)

# %% [markdown]
# ## Two experts hear it
#
# Their weights come inside packages. The same call again does nothing: finished rows are not done twice.

# %%
store = str(HERE / "targets")
for summary in extract(manifest.path, store, ["pitch", "vad"], resources=Resources(workers=0)):
    print(f"{summary.expert}: {summary.ok} rows, {summary.failed} failed, {summary.frames:,} frames")

# %% [markdown]
# ## One target
#
# A target carries its clock: frame i is centred at `start_s + i / rate_hz`. Of `pitch` the channels are log2 of
# f0, voicing, and loudness.

# %%
pitch = TargetStore(store).target_set("pitch")
target = pitch.read(row)
print(pitch.spec.channels, target.frames.shape, f"{pitch.spec.rate_hz:g} Hz, first frame at {target.times[0]:.3f} s")

voiced = target.frames[:, 1] >= 0.5
heard_hz = 2.0 ** target.frames[voiced, 0].astype(float)
truth = np.array(row.extra["f0"])  # [[time_s, Hz], ...]: log-linear between its points
true_hz = 2.0 ** np.interp(target.times[voiced], truth[:, 0], np.log2(truth[:, 1]))
cents = 1200 * np.abs(np.log2(heard_hz / true_hz))
print(f"{voiced.mean():.0%} of the frames are voiced; off by {np.median(cents):.0f} cents in the median")

# %% [markdown]
# ## See it over the sound

# %%
clip = decode(row.audio, row.offset, row.duration)
figure, axis = plt.subplots(figsize=(9, 3.2), constrained_layout=True)
axis.specgram(clip.samples_T + 1e-6, NFFT=1024, Fs=clip.rate, noverlap=768, cmap="Greys")
axis.plot(truth[:, 0], truth[:, 1], color="tab:blue", linewidth=5, alpha=0.4, label="truth")
axis.plot(target.times[voiced], heard_hz, ".", color="tab:orange", markersize=4, label="what `pitch` heard")
axis.set(ylim=(0, 1500), xlabel="seconds", ylabel="Hz", title=f"{row.id}: {row.prompt} {row.response}")
axis.legend(loc="upper right")
figure.savefig(HERE / "extract_and_look.png", dpi=110)

# %% [markdown]
# ![A gliding tone: truth, and what the expert heard, over the spectrogram](extract_and_look.png)
#
# *93 % of the frames are voiced, and off by 2 cents in the median. The lines above are overtones.*
#
# ## All frames of a set
#
# `dask()` gives every frame without reading them into memory.

# %%
frames = pitch.dask()
print("all frames:", frames.shape, "mean of each channel:", np.asarray(frames.mean(axis=0).compute()).round(2))

# %% [markdown]
# Next: [train and listen](train_and_listen.md). On the command line the same is `coat extract` and `coat inspect`:
# [the data engineer's guide](../guides/data-engineer.md).
