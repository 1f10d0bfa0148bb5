"""Training: the recipe (schedules, curricula, loss), its configuration, and the loop on torchtitan's Trainer."""

import os

# OpenMP's threads spin while they wait for each other, by default for milliseconds. Beside other load they then keep
# the cores from the threads that they wait for, and a step takes many times as long. Some 20 microseconds bridge the
# gaps between the matrix products of a step. It is read once, when torch is loaded; a user's own setting stands.
if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "1000"
