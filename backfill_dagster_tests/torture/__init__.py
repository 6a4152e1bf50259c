"""Crash points, refusing disks, power cuts, zombies and twins: looking for the breaking point instead of hoping to hit it."""
