"""Revisions: `NNNN_name.py`, where NNNN is the revision and grows."""
