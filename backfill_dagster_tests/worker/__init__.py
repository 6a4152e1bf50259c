"""Tests of `worker/`: the whole road against a network on loopback, and its breaking points."""
