"""A service that answers, collects labels and learns new classes, over HTTP with MONAI Label's routes."""
