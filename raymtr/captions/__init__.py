"""Tags become sentences."""
