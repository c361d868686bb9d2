"""Commands that only experiments need."""
