"""The commit protocol as a small machine, and a search through everything that can happen to it.

To understand how a shard is written, read this folder first: `world.py` (what there is), `starting.py`, `putting.py`
and `committing.py` (what a writer does, call by call), `invariants.py` (what is promised), `rules.py` (the ideas that
the promises rest on). Then the tests: `test_model.py` (all promises are kept, whatever happens), `test_switches.py`
(leave one idea out, and this is the shortest way to lose rows), `test_against_code.py` (the model's steps are those of
the code).

**What happens in the model.** One shard. Two processes (in one search three) write to it; each may be started twice
and may die at any moment of each life. A process reads the log, seals it, recovers, stages parts, appends entries,
publishes, writes the ledger, rewrites parts with dead rows, keeps snapshots, lets its lease go. Each durable call is
one step, and any two processes' steps come in any order. A lease can run out at any moment, so at every moment another
process may take over, and the first one, stalled, may go on later without having noticed: the zombie. Appends may
fail, and replies may get lost after the entry has come to stand.

**What the search is.** Breadth first over all worlds that can be reached, each visited once, no sampling: some 200,000
worlds. A broken promise comes with a shortest way to it.

**What makes it small**, and why nothing is lost by it:

- A writer that stops by itself (it is fenced, it sees that its lease is gone, a part is missing) forgets all it knew
  and touches nothing, which is what dying does. So there are no steps of their own for looking after the lease.
- Who is who doesn't matter: processes have no names, and a world with two of them swapped is the same world.
- Between two durable calls a process only computes, from what it has in memory, so that is part of the next step.
- A row is all that one DID had at one fetch, and an entry adds one part at most. Several parts of one entry become
  live together and are published one by one; that a run may die in between is tested on the code, at every call.

**What isn't in it**: power cuts (what a call has to flush is tested with the store), retry marks, purges and
compaction (entries with adds and removes, as a rewrite is one), void entries and repair, several shards. Parts are
staged as in a local folder. On S3 they lie at their final keys before the entry, as `entry_before_publish=False` has
it: a stalled writer's late part can show in a plain glob until the next run.
"""
