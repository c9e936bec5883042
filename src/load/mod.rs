//! When to do it: the schedule of a step, its shards, and the attack that `goose` governs.
