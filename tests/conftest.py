"""For all tests, and the processes that they start."""

import os

# Threads of OpenMP that wait, sleep. By default they spin for a while, which is a gain where each has a CPU of its own;
# here several processes of two threads share two CPUs, and tests of the trainer took twice the CPU time. Values stay.
# Read once, when torch is loaded: no test has done that yet.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
