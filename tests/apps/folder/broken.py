raise RuntimeError("before the first event")
