"""Training: the recipe (schedules, curricula, loss), its configuration, and the loop on torchtitan's Trainer."""
