"""What the command ``dynammo`` does (``everyone`` and ``further`` list its commands), and a run's first step."""
