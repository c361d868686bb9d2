"""A node on the hospital's network: images come in, results go out, and what is between them is on disk.

Nothing is imported here: who only asks the queue need not wait for torch.
"""
