"""Articles and their comments; an article's author is notified of each."""
