"""Classify with an exported model where there is no room for torch: ONNX Runtime, NumPy and Pillow, nothing else.

DICOM files are read by a process of its own, which is started with the first of them and needs pydicom.
"""
