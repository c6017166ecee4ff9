"""Science of T1 and ECV mapping: tensors in, tensors and records out; no files, clock, network or globals."""
