"""``redis:``, a log in a Redis or Valkey server, for many machines."""
