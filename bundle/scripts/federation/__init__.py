"""One model from many sites: what a site gives (sums, counts, folded adapters), and how it is added. No image moves."""

from scripts.federation.contribution import Contribution, Identity, read_contribution, write_contribution
from scripts.federation.matching import match_classes
from scripts.federation.pool import Pool
from scripts.federation.site import Card, Site

__all__ = [
    "Card",
    "Contribution",
    "Identity",
    "Pool",
    "Site",
    "match_classes",
    "read_contribution",
    "write_contribution",
]
