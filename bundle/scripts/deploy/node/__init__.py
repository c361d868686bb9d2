"""A node on the hospital's network: images come in, results go out."""

from scripts.deploy.node.destinations import StoreDestination, WebDestination
from scripts.deploy.node.fhir import FhirDestination
from scripts.deploy.node.health import Health
from scripts.deploy.node.mllp import Hl7Destination
from scripts.deploy.node.node import Node
from scripts.deploy.node.puller import Puller
from scripts.deploy.node.receiver import Receiver
from scripts.deploy.node.reporter import Reporter
from scripts.deploy.node.server import AssociationLimits
from scripts.deploy.node.tls import certificates
from scripts.deploy.node.web import make_client

__all__ = [
    "AssociationLimits",
    "FhirDestination",
    "Health",
    "Hl7Destination",
    "Node",
    "Puller",
    "Receiver",
    "Reporter",
    "StoreDestination",
    "WebDestination",
    "certificates",
    "make_client",
]
