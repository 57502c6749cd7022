"""Delivering a model: merging an adapter into its base, and quantized variants of the result."""
