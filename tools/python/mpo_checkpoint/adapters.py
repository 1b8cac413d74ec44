"""Low-rank adapters beside the layers of a model: LoRA (arXiv 2106.09685) and Deep LoRA (arXiv 2406.04112).

An adapter is a chain of factors whose product is added to a layer's matrix, dense or made of operators; the matrix itself does
not change. `save` writes an adapter as a term of the tensor's blocks, `save_peft_adapter` as an adapter of the PEFT library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .layers import Kind, kind_of
from .mpo_layers import MPOConv1D, MPOLinear
from .mpo_weight import MPOWeight
from .records import central_index

Frames = Literal["gradient", "half"]


class Adapter(MPOWeight):
    """A chain that is added to the matrix ``[I, J]`` of a layer: a frame, square cores (none in LoRA), and another frame.

    Parameters
    ----------
    left, right
        the frames, ``[I, r]`` and ``[r, J]``.
    inner
        the square cores ``[r, r]`` between them.
    is_transposed
        True if the layer computes ``x W``, False if it computes ``x Wᵀ``.
    """

    def __init__(self, left: Tensor, inner: Iterable[Tensor], right: Tensor, is_transposed: bool = False):
        cores = [left[None, :, None], *(core[:, None, None] for core in inner), right[:, None, :, None]]
        shape, ones = (len(left), right.shape[1]), (1,) * (len(cores) - 1)
        super().__init__([core.contiguous() for core in cores], shape, central_index((shape[0], *ones), (*ones, shape[1])))
        self.is_transposed = is_transposed

    @property
    def rank(self) -> int:
        return self.cores[0].shape[3]


def add_lora(
    model: nn.Module, rank: int, *, include: Iterable[str] | None = None, exclude: Iterable[str] = (), seed: int = 0
) -> dict[str, Adapter]:
    """Adds LoRA adapters ``B A`` to layers of a model, in place. A is random, B is zero; both are trained.

    Other parameters are trained as before: load the model with ``trainable="none"`` to train nothing but adapters.

    Parameters
    ----------
    model
        any module with linear layers, dense or made of cores.
    rank
        the rank of each adapter; if a side of the layer's matrix is shorter, that side is the rank.
    include, exclude
        globs of the layers' paths; ``exclude`` takes precedence. By default the linear layers that are made of cores are
        selected, or all linear layers if none is made of cores. Layers that share their weight never get an adapter.
    seed
        the seed of A's random elements.

    Returns
    -------
    dict of str to Adapter
        the adapters by the paths of their layers.

    Raises
    ------
    ValueError
        if no layer is selected, if a selected layer has an adapter already, or if the rank is not positive.
    """
    generator, adapters = torch.Generator().manual_seed(seed), {}
    for path, layer in _layers(model, include, exclude, rank).items():
        like, (rows, columns), is_transposed = _matrix_of(layer)
        size = min(rank, rows, columns)
        inputs = rows if is_transposed else columns
        down = (torch.randn(inputs, size, generator=generator) / inputs**0.5).to(like)
        up = torch.zeros(columns if is_transposed else rows, size).to(like)
        left, right = (down, up) if is_transposed else (up, down)
        adapters[path] = Adapter(left, [], right.T, is_transposed)
    return _attached(model, adapters)


def add_deep_lora(
    model: nn.Module,
    rank: int,
    loss: Callable[[nn.Module], Tensor],
    *,
    depth: int = 3,
    scale: float = 0.1,
    frames: Frames = "gradient",
    trains_frames: bool = False,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    seed: int = 0,
) -> dict[str, Adapter]:
    """Adds Deep LoRA adapters, square cores between two frames, to layers of a model, in place.

    The frames are singular vectors of the loss's gradient in each layer's matrix, and each core is ``scale`` times the
    identity: at the start an adapter is ``scale^depth`` times a product of the frames, a step that lowers the loss. Only the
    cores are trained.

    Parameters
    ----------
    model
        any module with linear layers, dense or made of cores.
    rank
        the rank of each adapter: its cores are ``[rank, rank]``. If a side of the layer's matrix is shorter, that side is the
        rank.
    loss
        a function of the model: the loss on the first batch of the training.
    depth
        the number of square cores.
    scale
        the factor of the identity in each core.
    frames
        ``"gradient"``: the leading singular vectors of the gradient. ``"half"``, as in the paper: half of each frame are leading
        singular vectors; the other half are the singular vectors of the other frame, mapped by a random isometry.
    trains_frames
        whether the frames are trained too. Give them a learning rate of their own, smaller than that of the cores.
    include, exclude
        see `add_lora`. Layers that the loss does not depend on get no adapter.
    seed
        the seed of the random isometry.

    Returns
    -------
    dict of str to Adapter
        the adapters by the paths of their layers.

    Raises
    ------
    ValueError
        for the reasons of `add_lora`, if ``depth`` or ``frames`` is invalid, or if the loss depends on no selected layer.
    """
    if depth < 1:
        raise ValueError(f"the depth is {depth}, but an adapter has at least one core")
    layers = _layers(model, include, exclude, rank)
    generator, adapters = torch.Generator().manual_seed(seed), {}
    for path, gradient in first_gradients(model, layers, loss).items():
        like, (rows, columns), is_transposed = _matrix_of(layers[path])
        size = min(rank, rows, columns)
        left, right = _frames(gradient, size, frames, generator)
        inner = [scale * torch.eye(size).to(like) for _ in range(depth)]
        adapter = adapters[path] = Adapter(-left.to(like), inner, right.T.to(like), is_transposed)
        for frame in (adapter.cores[0], adapter.cores[-1]):
            frame.requires_grad_(trains_frames)
    if not adapters:
        raise ValueError("the loss depends on none of the selected layers")
    return _attached(model, adapters)


def first_gradients(
    model: nn.Module, layers: Mapping[str, nn.Module], loss: Callable[[nn.Module], Tensor]
) -> dict[str, Tensor]:
    """The gradients ``[I, J]`` of a loss in the matrices of linear layers, by path, without those that are zero.

    Parameters
    ----------
    layers
        linear layers of the model, by path.
    loss
        a function of the model.
    """
    changes: dict[str, Tensor] = {}
    handles = []

    def hook(change: Tensor, is_transposed: bool) -> Callable[..., Tensor]:
        def forward_hook(layer: nn.Module, arguments: tuple, named: dict, result: Tensor) -> Tensor:
            x = arguments[0] if arguments else next(iter(named.values()))
            return result + x @ (change if is_transposed else change.T)

        return forward_hook

    for path, layer in layers.items():
        like, shape, is_transposed = _matrix_of(layer)
        changes[path] = torch.zeros(shape, dtype=like.dtype, device=like.device, requires_grad=True)
        handles.append(layer.register_forward_hook(hook(changes[path], is_transposed), with_kwargs=True))
    try:
        with torch.enable_grad():
            value = loss(model)
            tensors = list(changes.values())
            found = torch.autograd.grad(value, tensors, allow_unused=True) if value.requires_grad else [None] * len(tensors)
    finally:
        for handle in handles:
            handle.remove()
    return {path: gradient for path, gradient in zip(changes, found) if gradient is not None and gradient.any()}


def adapters_of(model: nn.Module) -> dict[str, Adapter]:
    """The adapters of a model.

    Parameters
    ----------
    model
        any module.

    Returns
    -------
    dict of str to Adapter
        the adapters by the paths of their layers.
    """
    return {
        path: layer.adapter
        for path, layer in model.named_modules()
        if isinstance(getattr(layer, "adapter", None), Adapter)
    }


def _frames(gradient: Tensor, rank: int, kind: Frames, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Orthonormal columns ``[I, r]`` and ``[J, r]``."""
    u, _, v = torch.linalg.svd(gradient.cpu().double(), full_matrices=False)
    if kind == "gradient":
        return u[:, :rank], v[:rank].T
    if kind != "half":
        raise ValueError(f"frames is '{kind}'; it must be gradient or half")
    rows, columns = gradient.shape
    if rows < columns:
        left, right = _frames(gradient.T, rank, kind, generator)
        return right, left
    half = rank // 2

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    image = torch.linalg.qr(torch.cat([u[:, :half], random(rows, columns - half)], 1))[0]
    isometry = image @ torch.linalg.qr(random(columns, columns))[0]
    right = torch.linalg.qr(torch.cat([v[: rank - half].T, isometry.T @ u[:, :half]], 1))[0]
    return isometry @ right, right


def _layers(
    model: nn.Module, include: Iterable[str] | None, exclude: Iterable[str], rank: int
) -> dict[str, nn.Module]:
    if rank < 1:
        raise ValueError(f"the rank is {rank}, but it must be at least 1")
    layers = {path: module for path, module in model.named_modules() if _is_linear(module)}
    owners: dict[int, int] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, (Tensor, nn.Module)):
            owners[id(weight)] = owners.get(id(weight), 0) + 1
    layers = {path: layer for path, layer in layers.items() if owners[id(layer.weight)] == 1}
    if include is None:
        made_of_cores = {path: layer for path, layer in layers.items() if isinstance(layer, (MPOLinear, MPOConv1D))}
        layers = made_of_cores or layers
    else:
        include = tuple(include)
        layers = {path: layer for path, layer in layers.items() if any(fnmatchcase(path, glob) for glob in include)}
    exclude = tuple(exclude)
    layers = {path: layer for path, layer in layers.items() if not any(fnmatchcase(path, glob) for glob in exclude)}
    if not layers:
        raise ValueError("no linear layer of the model is selected; see include and exclude")
    for path, layer in layers.items():
        if hasattr(layer, "adapter"):
            raise ValueError(f"{path} has an adapter already; save the model and load it again to add another")
    return layers


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (MPOLinear, MPOConv1D)) or kind_of(module) in (Kind.LINEAR, Kind.CONV1D)


def _matrix_of(layer: nn.Module) -> tuple[Tensor, tuple[int, int], bool]:
    """A tensor of a layer's dtype and device, the shape of its matrix, and whether the layer computes ``x W``."""
    is_transposed = isinstance(layer, MPOConv1D) or kind_of(layer) is Kind.CONV1D
    weight = layer.weight
    like = weight if isinstance(weight, Tensor) else torch.empty(0, dtype=weight.dtype, device=weight.device)
    return like, tuple(weight.shape), is_transposed


def _attached(model: nn.Module, adapters: dict[str, Adapter]) -> dict[str, Adapter]:
    report = getattr(getattr(model, "mpo_source", None), "report", None)
    for path, adapter in adapters.items():
        attach(model.get_submodule(path), adapter)
        if report is not None:
            report.parameters["adapters"] += sum(core.numel() for core in adapter.cores)
            report.trainable["adapters"] += sum(core.numel() for core in adapter.cores if core.requires_grad)
    return adapters


def attach(layer: nn.Module, adapter: Adapter) -> None:
    """Adds an adapter to a layer: its product is added to the layer's output."""
    layer.adapter = adapter
    layer._adapter_hook = layer.register_forward_hook(_add_adapter, with_kwargs=True)


def detach(layer: nn.Module) -> None:
    """Removes the adapter of a layer."""
    del layer.adapter
    layer._adapter_hook.remove()


def _add_adapter(layer: nn.Module, arguments: tuple, named: dict[str, Any], result: Tensor) -> Tensor:
    x = arguments[0] if arguments else next(iter(named.values()))
    return result + layer.adapter(x, transposed=layer.adapter.is_transposed)
