"""The proof: strategies and peers replay real learning curves in simulated time."""
