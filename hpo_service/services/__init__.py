"""The use cases of the API. Each takes a session whose transaction belongs to the caller, and the caller's project."""
