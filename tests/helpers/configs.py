"""Where the shipped configs lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
SHARED = ROOT.parent / 'shared'
