"""What belongs to a study and is no image: this bundle's own results among it."""

from __future__ import annotations

from pydicom.uid import UID

from scripts.deploy.node.entity import find_uids

# Taken and dropped, so that a study that is sent as a whole does not fail, and a result that comes back starts nothing.
_NAMES = (
    "BasicTextSRStorage",
    "EnhancedSRStorage",
    "ComprehensiveSRStorage",
    "Comprehensive3DSRStorage",
    "ExtensibleSRStorage",
    "XRayRadiationDoseSRStorage",
    "KeyObjectSelectionDocumentStorage",
    "GrayscaleSoftcopyPresentationStateStorage",
    "ColorSoftcopyPresentationStateStorage",
    "SegmentationStorage",
)


def not_images() -> frozenset[UID]:
    """Return SOP classes of reports, selections and presentations."""
    return frozenset(find_uids(_NAMES))
