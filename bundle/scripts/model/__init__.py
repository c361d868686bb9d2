"""What a trained model is: its network, how it decides, and the folder that holds it.

Nothing is imported here: the edge has no torch.
"""
