"""Training: settings, state, what a run holds, its loop, and its files."""
