"""A node on the hospital's network: images come in, results go out, and what is between them is on disk."""

from scripts.node.destinations import StoreDestination, WebDestination
from scripts.node.node import Node
from scripts.node.puller import Puller
from scripts.node.queue import ImageQueue
from scripts.node.receiver import Receiver
from scripts.node.reporter import Reporter
from scripts.node.web import make_client

__all__ = [
    "ImageQueue",
    "Node",
    "Puller",
    "Receiver",
    "Reporter",
    "StoreDestination",
    "WebDestination",
    "make_client",
]
