"""Rules that several benchmarks share, each as its authors' code has it."""
