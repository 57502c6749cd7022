"""Plots as inline SVG. Their colours come from the page's classes, so that they follow its light or dark looks."""
