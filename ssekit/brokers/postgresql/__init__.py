"""``postgresql:``, a log in the database that is there already, for many machines."""
