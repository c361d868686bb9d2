"""The wing that uses trained models: folders, exports, DICOM, the edge, versions, the node, the service."""
