"""A Django project with the whole default middleware, and whatever else a test puts in front."""
