"""make bench: figures as ratios of two things measured alternately in one run."""
