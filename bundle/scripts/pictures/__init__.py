"""All that is drawn with matplotlib: pure functions from figures of a run to a picture, and how it is written."""
