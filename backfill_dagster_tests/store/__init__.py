"""Tests of the object store: its contract, its system calls, its errors, and real processes racing."""
