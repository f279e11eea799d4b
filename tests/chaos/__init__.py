"""Faults that a user's machine has, done to whole runs: `make chaos`.

After each of them the same command must end with the tables of a run that was left in peace, or
refuse in one line. Everything happens in a temporary folder and on the loopback address.
"""
