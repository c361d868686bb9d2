"""The DICOM conformance statement, and what is said of a result in other standards, out of the code's own tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from tabulate import tabulate

from scripts import bundle_root, bundle_version
from scripts.deploy.dicom.dicom_result import NOT_VERIFIED
from scripts.deploy.dicom.heat_map import heat_segmentation
from scripts.deploy.dicom.structured_report import SCHEME, structured_report
from scripts.deploy.inference.saliency import secondary_capture
from scripts.deploy.messages.fhir import SYSTEMS
from scripts.deploy.messages.hl7 import VERSION
from scripts.deploy.node.classes import not_images
from scripts.deploy.node.destinations import SENT_SYNTAXES
from scripts.deploy.node.entity import find_uids
from scripts.deploy.node.receiver import LONGEST_PDU
from scripts.imaging.decoding.dicom import JPEG_LOSSLESS, OWN_MANUFACTURER, readable_syntaxes
from scripts.imaging.transforms.scans import SourceImage
from scripts.model.decisions.results import ModelIdentity

_CLASS = "CLASS"


def conformance_statement() -> str:
    """Return the page, Markdown."""
    taken = json.loads(Path(bundle_root(), "configs", "node.json").read_text())["sop_classes"]
    syntaxes = [uid for uid in readable_syntaxes() if uid not in JPEG_LOSSLESS]
    documents = _documents()
    return f"""# Conformance

{OWN_MANUFACTURER} {bundle_version()}. `dynammo conformance` prints this page from the tables that the node works with;
the defaults of `configs/node.json` are shown. Nobody has certified it, and no connectathon has seen it.

## DICOM: as a provider (SCP)

The node takes C-STORE and C-ECHO, with PDUs up to {LONGEST_PDU} bytes. Each SOP class in each transfer syntax.

{_table(("SOP class", "UID", "what becomes of it"), _taken(taken))}

{_table(("transfer syntax", "UID"), [*((UID(uid).name, uid) for uid in syntaxes), *_lossless()])}

## DICOM: as a user (SCU)

C-STORE of results, in {" and ".join(uid.name for uid in SENT_SYNTAXES)}; the same by
STOW-RS (PS3.18 10.5). Images are fetched by QIDO-RS and WADO-RS where that is asked for (PS3.18 10.6, 10.4).

{_table(("SOP class", "UID", "modality"), _sent(documents))}

A result is in the study of its image, in a series of its own; its UIDs (`2.25.`) are derived from model, settings and
image.

## What a report says: TID {documents[0].ContentTemplateSequence[0].TemplateIdentifier}

{documents[0].CompletionFlag}, {documents[0].PreliminaryFlag}, {documents[0].VerificationFlag}.
The concepts of a report, with those of one that is indeterminate and of one of several findings; `{_CLASS}` stands for
a class or finding, whose code is a hash of its name in the scheme `{SCHEME}`.

{_table(("concept", "code", "scheme", "value type"), _concepts(documents))}

## IHE AI Results (AIR)

What an Evidence Creator of that profile writes, and what of it is written here.

{_table(("result", "here"), _AIR)}

## FHIR R4B

A transaction to the base of a server (`--destination @fhir`): Device, Observation, DiagnosticReport, each by PUT under
its identifier; status preliminary; patient and ImagingStudy by identifier.

{_table(("coding scheme of DICOM", "system of FHIR"), SYSTEMS.items())}

## HL7 v2

ORU^R01, version {VERSION}, by MLLP (`--destination @hl7`); UTF-8; AA and CA acknowledge, AE, AR,
CE and CR refuse. OBR-25 and OBX-11 are P; NTE-3 is "{NOT_VERIFIED}"; OBR-3 is the SOP instance UID of the
report, OBR-18 the accession number."""


_AIR = (
    (
        "Qualitative finding (TID 1500, Measurement Group)",
        "the predicted class, or each finding, or why there is none",
    ),
    ("Measurement (TID 1500, Measurement Group)", "the probability of each class"),
    ("Image region (SEG)", "where the network looked, with `--saliency seg`"),
    ("Location (TID 1410, SCOORD3D), tracking over time", "not written: a result is of a whole image"),
    ("Parametric map", "not written"),
    ("Store: C-STORE, STOW-RS", "both"),
    ("Worklist (AI Workflow for Imaging, UPS-RS)", "not taken part in"),
)


def _taken(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for uid in find_uids(names):
        yield uid.name, uid, "classified"
    for uid in sorted(not_images()):
        yield uid.name, uid, "dropped"
    yield UID(Verification).name, Verification, "answered"


def _sent(documents: Iterable[Dataset]) -> dict[tuple[str, str, str], None]:
    return dict.fromkeys((doc.SOPClassUID.name, doc.SOPClassUID, doc.Modality) for doc in documents)


def _lossless() -> list[tuple[str, str]]:
    return [(f"{UID(uid).name}, with dcmtk's dcmdjpeg", uid) for uid in JPEG_LOSSLESS]


def _documents() -> list[Dataset]:
    """Return results of an example, as the code writes them.

    They are reports of a class, of none, and of a finding among several, a capture and a segmentation.
    """
    header = Dataset()
    header.SOPClassUID, header.PatientName, header.PatientID = CTImageStorage, "", ""
    header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID = "1.2.3", "1.2.3.4", "1.2.3.4.5"
    source = SourceImage(header, (), "", ())
    model = ModelIdentity("model", "1", "0" * 64, (_CLASS,), threshold=0.5)
    sure, unsure = model.judge([0.9]), model.judge([0.1])
    capture = secondary_capture(np.zeros((4, 4, 3), np.uint8), sure, source)
    segmentation = heat_segmentation(np.ones((4, 4), np.float32), sure, source)
    report = structured_report(sure, source, [capture, segmentation])
    several = replace(model, threshold=None, thresholds=(0.5,)).judge([0.9])
    return [report, capture, segmentation, structured_report(unsure, source), structured_report(several, source)]


def _concepts(documents: Iterable[Dataset]) -> list[tuple[str, str, str, str]]:
    """Return each concept of the reports once, in the order of their trees."""
    found: dict[tuple[str, str, str, str], None] = {}
    for document in documents:
        for item in (document, *_items(document)):
            if "ConceptNameCodeSequence" in item:
                (code,) = item.ConceptNameCodeSequence
                found[code.CodeMeaning, code.CodeValue, code.CodingSchemeDesignator, item.ValueType] = None
    return list(found)


def _items(item: Dataset) -> Iterator[Dataset]:
    for inner in item.get("ContentSequence", []):
        yield inner
        yield from _items(inner)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return tabulate([list(map(str, row)) for row in rows], heads, "github", disable_numparse=True)
