"""Results as DICOM objects."""
