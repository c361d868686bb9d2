"""How a finished network decides, and what it says of an image; without torch, which the edge has not."""

from scripts.model.decisions.outliers import OutlierRule, StatisticsSums
from scripts.model.decisions.results import Doubt, ModelIdentity, Result
from scripts.model.decisions.rules import DecisionRules

__all__ = ["DecisionRules", "Doubt", "ModelIdentity", "OutlierRule", "Result", "StatisticsSums"]
