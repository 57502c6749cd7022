"""Training on a base that is partitioned over the ranks of a worker group (DeepSpeed ZeRO-3)."""
