"""One step: losses, gradients, the update; and what is a function of the step alone. It touches no file."""
