"""One way from a file to the pixels that a model sees.

Nothing is imported here: the decoding process and the edge must start soon, without torch.
"""
