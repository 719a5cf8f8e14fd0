"""The programs: one module for each, which the scripts at the top of the repository and `reasoning-irl` run."""
