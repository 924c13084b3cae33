"""Faults done to real processes; see tests/faults/README.md."""
