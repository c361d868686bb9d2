"""The report of a run or of a comparison: one page that holds all of it."""
