"""How DICOM and NIfTI files become pictures: in a child process, which imports nothing but this room.

Nothing is imported here: the child process starts for every process that reads such files, and must start soon.
"""
