"""The gate that data pass before a GPU is used: what is wrong with them, and whether that matters. No torch here."""
