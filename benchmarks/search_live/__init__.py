"""Our search through the real service against the article's recipe on the same machine."""
