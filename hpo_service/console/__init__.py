"""The console's pages. Pure: each is made from what the use cases read, and escaped by construction."""
