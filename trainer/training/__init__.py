"""Training a student.

train.py             open a run's folder and its data, train or go on
run.py               the run: steps, reports, evaluations, checkpoints
stopping.py          signals that stop it at the end of a step
held_out.py          losses and accuracy on held-out shards beside it
asked_benchmarks.py  benchmarks and manifests asked beside it
step/                one step: losses, gradients, the update, schedules
checkpointing/       what is in a checkpoint, and how it is written
distributed/         DDP, and FSDP2 of frozen or of all weights
reporting/           metrics, TensorBoard, trackers

The command line, `trainer.planning` and benchmarks may import it; it must never import `trainer.planning`.
"""
