"""Mutated files for every loader: `cd tests && python -m fuzz --inputs 10000`."""
