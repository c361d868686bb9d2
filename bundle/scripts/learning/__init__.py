"""The wing that learns: it never meets the one that is deployed."""
