"""Template tags, which Django finds by the name of this package."""
