"""What every room may need: errors with advice, files written whole, checked JSON."""
