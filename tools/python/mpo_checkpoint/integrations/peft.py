"""PEFT puts LoRA beside layers made of cores: `MPOLinear` and `MPOConv1D` are targets like any linear layer."""

from __future__ import annotations

import functools
from typing import Any

from peft.tuners.lora import layer as lora
from torch import nn

from ..modules import MPOConv1D, MPOLinear


class LoraMPOLinear(lora.Linear):
    """LoRA beside a linear layer made of cores: ``x Wᵀ + (x Aᵀ) Bᵀ · scaling``, the cores as they are."""

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        rows, columns = module.weight.matrix_shape
        return (rows, columns) if isinstance(module, MPOConv1D) else (columns, rows)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise NotImplementedError("an adapter beside cores can't be merged yet; save it as an adapter")


def register(model: Any) -> None:
    """Lets PEFT's LoRA find the layers."""
    default = model.dispatch_default

    @functools.wraps(default)
    def dispatch(target: nn.Module, adapter_name: str, config: Any, parameter_name: str | None = None, **kwargs: Any) -> Any:
        base = target.get_base_layer() if isinstance(target, lora.LoraLayer) else target
        if parameter_name is None and isinstance(base, (MPOLinear, MPOConv1D)):
            config.fan_in_fan_out = isinstance(base, MPOConv1D)
            return LoraMPOLinear(
                target, adapter_name, config=config, is_target_conv_1d_layer=isinstance(base, MPOConv1D), **kwargs
            )
        return default(target, adapter_name, config=config, parameter_name=parameter_name, **kwargs)

    model.dispatch_default = dispatch
