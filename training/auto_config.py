"""`nann train --config auto`: a configuration for a prepared data set, and the reasons for it."""

from __future__ import annotations

from .config import KernelConfig, ModelConfig, StartConfig, TrainingConfig, ValidationConfig
from .data.prepared import PreparedData
