"""``sqlite:``, a log in a file, for every process of one machine."""
