"""What an image of one's own will measure, computed from its files before it ever runs: one module for each platform."""
