"""Immutable versions of a trained model, the gate they pass, and the log of what happened to them.

Nothing is imported here: to go back to an earlier version must not wait for torch.
"""
