"""How parameters move: optimizers, schedules, factors by layer."""
