"""``memory:``, a log in this process alone, and the plainest reading of the contract."""
