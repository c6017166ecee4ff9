"""Alignment of the echoes of a series, and of post-contrast images to native ones."""
