"""The parts of the benchmark; `run` and `budget` beside this folder are its commands."""
