"""The plan: assignment, storage, estimate."""
