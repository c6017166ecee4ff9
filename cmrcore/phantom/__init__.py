"""The digital trial: short-axis hearts, tissues and MOLLI scans with known truth."""

from cmrcore.phantom.bloch import Acquisition, Pulses, acquire, paint
from cmrcore.phantom.course import Scanner, site_scanner
from cmrcore.phantom.difficulty import Difficulty
from cmrcore.phantom.geometry import SliceGeometry
from cmrcore.phantom.readout import Readout
from cmrcore.phantom.scheme import Scheme, parse_scheme
from cmrcore.phantom.trial import RoleEchoes, SimulatedScan, simulate_scan
from cmrcore.phantom.truth import Truth

__all__ = [
    "Acquisition",
    "Difficulty",
    "Pulses",
    "Readout",
    "RoleEchoes",
    "Scanner",
    "Scheme",
    "SimulatedScan",
    "SliceGeometry",
    "Truth",
    "acquire",
    "paint",
    "parse_scheme",
    "simulate_scan",
    "site_scanner",
]
