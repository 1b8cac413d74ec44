"""Lets PEFT add LoRA to layers made of cores: `MPOLinear` and `MPOConv1D` are targets like any linear layer."""

from __future__ import annotations

import functools
from typing import Any

import torch
from peft.tuners import tuners_utils
from peft.tuners.lora import layer as lora
from peft.utils.constants import INCLUDE_LINEAR_LAYERS_SHORTHAND, SEQ_CLS_HEAD_NAMES
from torch import nn

from ..adapters import Adapter, attach, detach
from ..mpo_layers import MPOConv1D, MPOLinear


class LoraMPOLinear(lora.Linear):
    """LoRA on a linear layer made of cores: ``x Wᵀ + (x Aᵀ) Bᵀ · scaling``; the cores do not change."""

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        rows, columns = module.weight.matrix_shape
        return (rows, columns) if isinstance(module, MPOConv1D) else (columns, rows)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merges the active adapters into one `Adapter` of the layer, which ``save_pretrained`` writes as a term.

        Raises
        ------
        ValueError
            if the layer has a merged adapter, if an adapter is not plain LoRA, or if ``safe_merge`` finds elements that are not
            finite.
        """
        names = tuners_utils.check_adapters_to_merge(self, adapter_names)
        if not names:
            return
        base = self.get_base_layer()
        if hasattr(base, "adapter"):
            raise ValueError("the layer has a merged adapter already; save the model and load it again to merge another")
        if any(self.lora_bias[name] or name in self.lora_variant for name in names):
            raise ValueError("only plain LoRA without biases can be merged beside cores")
        ups = [self.lora_B[name].weight.detach() * self.scaling[name] for name in names]
        up, down = torch.cat(ups, 1), torch.cat([self.lora_A[name].weight.detach() for name in names])
        if safe_merge and not (up.isfinite().all() and down.isfinite().all()):
            raise ValueError(f"the adapter {', '.join(names)} has elements that are not finite")
        is_transposed = isinstance(base, MPOConv1D)
        left, right = (down.T, up.T) if is_transposed else (up, down)
        rows, columns = base.weight.matrix_shape
        if left.shape[1] > min(rows, columns):  # together they have more than full rank
            identity = torch.eye(min(rows, columns)).to(left)
            left, right = (identity, left @ right) if rows <= columns else (left @ right, identity)
        attach(base, Adapter(left.contiguous(), [], right.contiguous(), is_transposed).requires_grad_(False))
        self.merged_adapters += names

    def unmerge(self) -> None:
        if self.merged_adapters:
            detach(self.get_base_layer())
            self.merged_adapters.clear()


def register(model: Any) -> None:
    """Makes PEFT's LoRA accept layers made of cores."""
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
    include = tuners_utils._maybe_include_all_linear_layers

    @functools.wraps(include)
    def include_all_linear(peft_config: Any, model: nn.Module) -> Any:
        targets = getattr(peft_config, "target_modules", None)
        peft_config = include(peft_config, model)
        if isinstance(targets, str) and targets.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
            peft_config.target_modules = {*peft_config.target_modules, *_linear_layers(model, peft_config.task_type)}
        return peft_config

    tuners_utils._maybe_include_all_linear_layers = include_all_linear


def _linear_layers(model: nn.Module, task: str | None) -> set[str]:
    """The paths of layers made of cores that ``target_modules="all-linear"`` selects: as in PEFT, all but the head."""
    heads: list[nn.Module] = []
    if hasattr(model, "get_output_embeddings"):
        output = model.get_output_embeddings()
        if output is not None:
            heads = [output]
        elif task == "SEQ_CLS":
            heads = [getattr(model, name) for name in SEQ_CLS_HEAD_NAMES if hasattr(model, name)]
    tuned = [f"{path}." for path, module in model.named_modules() if isinstance(module, tuners_utils.BaseTunerLayer)]
    return {
        path
        for path, module in model.named_modules()
        if isinstance(module, (MPOLinear, MPOConv1D))
        and not any(module is head for head in heads)
        and not any(path.startswith(prefix) for prefix in tuned)
    }
