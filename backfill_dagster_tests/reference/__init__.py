"""Conformance: the whole road against the reference PDS and PLC directory, which share no line with this project."""
