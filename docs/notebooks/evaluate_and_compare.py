# %% [markdown]
# # Evaluate and compare
#
# Two students answer the same questions. Which one is better, and is that a difference? It needs
# `runs/quickstart` of `make quickstart`, and the run
# of [train and listen](train_and_listen.md). Run it from the folder of the checkout, as a notebook or by `python
# docs/notebooks/evaluate_and_compare.py`.

# %%
from pathlib import Path

import matplotlib

from coat.trainer.evaluation.asking.who import make_asker
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.reports.comparing import Arm, compare, sentence
from coat.trainer.evaluation.reports.finished import read_finished
from coat.trainer.evaluation.reports.report import write_report
from coat.trainer.evaluation.settings import EvaluationSettings

matplotlib.use("Agg")  # leave this line out in Jupyter: figures then show below their cells
import matplotlib.pyplot as plt

QUICKSTART = Path("runs/quickstart")
HERE = Path("runs/notebooks/evaluate")
HELDOUT = str(QUICKSTART / "corpus" / "heldout.jsonl")
RUNS = {"quickstart": QUICKSTART / "run", "fewer steps": Path("runs/notebooks/train/run")}

# %% [markdown]
# ## Ask both
#
# Answers are greedy. Some clips are asked again with another sound and with silence: does the student hear at all?

# %%
folders = {}
for name, run in RUNS.items():
    settings = EvaluationSettings.from_dict(
        {
            "benchmarks": [{"name": "manifest", "label": "manifest", "data": HELDOUT}],
            "subject": {"kind": "run", "sources": [str(run)]},
            "max_new_tokens": 12,
            "guard": 8,
            "cost": 0,
        },
        "this notebook",
    )
    folders[name] = HERE / name.replace(" ", "-")
    results = evaluate(settings, folders[name], make_asker)
    assert results is not None  # there is one rank
    print(name, "-", results.heading)

# %% [markdown]
# ## Scores with their intervals
#
# By the strict rule, beside chance. An interval of 95 % says where the score would lie with other clips of the
# same kind.

# %%
finished = read_finished([str(folder) for folder in folders.values()])
figure, axis = plt.subplots(figsize=(9, 2.2), constrained_layout=True)
for at, (name, one) in enumerate(zip(folders, finished, strict=True)):
    found = one.results.benchmarks["manifest"]
    score, (low, high) = found.scores.strict["accuracy"], found.intervals.strict["accuracy"]
    print(f"{name}: {score:.0%} right ({low:.0%} to {high:.0%}), by chance {found.chance or 0:.0%}, {found.rows} clips")
    axis.plot([low, high], [at, at], color="tab:blue", linewidth=3, alpha=0.4)
    axis.plot([score], [at], "o", color="tab:blue")
    axis.axvline(found.chance or 0, color="grey", linestyle=":")
axis.set(
    yticks=range(len(folders)),
    yticklabels=list(folders),
    xlim=(0, 1),
    ylim=(-0.6, 1.6),
    xlabel="share of right answers",
)
figure.savefig(HERE / "scores.png", dpi=110)

# %% [markdown]
# ![Accuracy of both students with intervals, and chance as a dotted line](scores.png)
#
# *85 % (78 to 91) for the quickstart's 325 steps, 54 % (45 to 63) for 120 steps; 39 % by chance.*
#
# ## Is it a difference?
#
# Both answered the same clips, so what is hard for both cancels out. An interval that holds 0 is no difference.

# %%
arms = [Arm(name, [one]) for name, one in zip(folders, finished, strict=True)]
for comparison in compare(arms):
    for difference in comparison.overall:
        print(sentence(comparison, difference))

# %% [markdown]
# *54.2 against 85.0, -30.8 points (-40.0 to -21.6): worse.* So fewer steps are worse, and by no less than 21 points.
#
# ## A page with every answer
#
# Open it in a browser: filter, search, and hear each clip.

# %%
page = write_report([str(folder) for folder in folders.values()], str(HERE / "report.html"), "embed", 8_000_000)
print(page.path, f"{page.rows} rows, {page.clips} clips")

# %% [markdown]
# On the command line the same is `coat evaluate`, `coat compare` and `coat report`: [Evaluation](../evaluate.md).
