"""The digital trial: short-axis hearts, tissues and MOLLI scans with known truth."""

from cmrcore.phantom.bloch import MolliScheme, molli_echoes, parse_scheme
from cmrcore.phantom.geometry import SliceGeometry
from cmrcore.phantom.trial import RoleEchoes, SimulatedScan, simulate_scan
from cmrcore.phantom.truth import Truth

__all__ = [
    "MolliScheme",
    "RoleEchoes",
    "SimulatedScan",
    "SliceGeometry",
    "Truth",
    "molli_echoes",
    "parse_scheme",
    "simulate_scan",
]
