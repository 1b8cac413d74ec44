"""Keras layers made of cores, for any backend: `MPODense` and `MPOEmbedding`. `with_cores` puts them into a model.

>>> model = with_cores(keras.models.load_model("dense.keras"), "model.mpo")
>>> model.fit(...); model.save("tuned.keras")

After ``import mpo_checkpoint.keras``, Keras loads a saved model like any other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

try:
    import keras
    from keras import ops
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mpo_checkpoint.keras needs Keras and a backend, but the package {error.name} is missing; run: pip install keras h5py jax, "
        "and set KERAS_BACKEND=jax",
        name=error.name,
    ) from None

from . import gauge
from .checkpoint import MPOCheckpoint
from .errors import CheckpointError
from .records import Basis, OperatorRecord, TensorRecord

Trainable = Literal["all", "auxiliary", "none"]
Values = list[np.ndarray]


class _MadeOfCores:
    """The weight of a layer: a matrix ``[I, J]`` of blocks, stacked along the rows; each block is a sum of ranges of operators.

    ``structure`` describes it in JSON values, so that it can be in the layer's configuration. It has ``operators``, each with
    the ``shapes`` of its cores, its ``matrix_shape``, the index of its ``central`` core and, in ``sides``, the shapes of the
    bases, permutations and scales of its rows and columns; and ``blocks``, lists of terms ``[operator, rows, columns]``.
    """

    structure: dict[str, Any]
    add_weight: Callable[..., Any]

    def add_cores(self, trainable: Trainable) -> None:
        self.cores = []
        self.sides = []
        for index, operator in enumerate(self.structure["operators"]):
            for k, shape in enumerate(operator["shapes"]):
                is_trained = trainable == "all" or (trainable == "auxiliary" and k != operator["central"])
                self.cores.append(
                    self.add_weight(
                        shape=tuple(shape), name=f"operator_{index}_core_{k}", initializer="glorot_uniform", trainable=is_trained
                    )
                )
            for axis, roles in enumerate(operator["sides"]):
                for role, shape in roles.items():
                    self.sides.append(
                        self.add_weight(
                            shape=tuple(shape), name=f"operator_{index}_side_{axis}_{role}", initializer="zeros",
                            dtype="int32" if role == "permutation" else None, trainable=False,
                        )
                    )  # fmt: skip

    def factors(self) -> tuple[Any, Any] | None:
        """``up [I, r]`` and ``down [r, J]`` whose product is the matrix; None if it is not one low-rank operator."""
        operator = self.structure["operators"][0]
        first, *inner, last = operator["shapes"]
        rows, columns = operator["matrix_shape"]
        is_one = len(self.structure["operators"]) == 1 and self.structure["blocks"] == [[[0, [0, rows], [0, columns]]]]
        is_low_rank = first[1:3] == [rows, 1] and last[1:3] == [1, columns] and all(s[1] == s[2] == 1 for s in inner)
        if not is_one or not is_low_rank or any(operator["sides"]):
            return None
        up = ops.reshape(self.cores[0], (rows, first[3]))
        for core in self.cores[1:-1]:
            up = ops.matmul(up, ops.reshape(core, (core.shape[0], core.shape[3])))
        return up, ops.reshape(self.cores[-1], (last[0], columns))

    def matrix(self) -> Any:
        """The matrix ``[I, J]``; differentiable in the cores."""
        matrices, cores, sides = [], iter(self.cores), iter(self.sides)
        for operator in self.structure["operators"]:
            matrix = _multiplied([next(cores) for _ in operator["shapes"]], operator["matrix_shape"])
            for axis, roles in enumerate(operator["sides"]):
                named = {role: next(sides) for role in roles}
                matrix = matrix if axis == 0 else ops.transpose(matrix)
                if "scale" in named:
                    matrix = ops.expand_dims(named["scale"], 1) * matrix
                if "basis" in named:
                    matrix = ops.matmul(named["basis"], matrix)
                if "permutation" in named:
                    matrix = ops.take(matrix, named["permutation"], axis=0)
                matrix = matrix if axis == 0 else ops.transpose(matrix)
            matrices.append(matrix)
        blocks = []
        for block in self.structure["blocks"]:
            terms = [matrices[k][rows[0] : rows[1], columns[0] : columns[1]] for k, rows, columns in block]
            blocks.append(sum(terms[1:], start=terms[0]))
        return blocks[0] if len(blocks) == 1 else ops.concatenate(blocks, axis=0)


@keras.saving.register_keras_serializable("mpo_checkpoint")
class MPODense(keras.layers.Layer, _MadeOfCores):
    """``activation(x K + b)``, as `keras.layers.Dense`, with the kernel ``K [inputs, units]`` made of cores.

    Parameters
    ----------
    structure
        a description of the kernel, which `with_cores` makes.
    activation, use_bias
        as for `keras.layers.Dense`.
    trainable_cores
        which cores are trained: ``"all"``, ``"auxiliary"`` (central cores are frozen) or ``"none"``.
    """

    def __init__(
        self, structure: dict[str, Any], activation: Any = None, use_bias: bool = True, trainable_cores: Trainable = "all",
        **options: Any,
    ):  # fmt: skip
        super().__init__(**options)
        self.structure, self.trainable_cores, self.use_bias = structure, trainable_cores, use_bias
        self.activation = keras.activations.get(activation)
        self.bias = None
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.add_cores(self.trainable_cores)
        if self.use_bias:
            units = self.structure["blocks"][0][0][2]
            self.bias = self.add_weight(shape=(units[1] - units[0],), name="bias", initializer="zeros")
        self.built = True

    def call(self, inputs: Any) -> Any:
        factors = self.factors()
        if factors is None:
            result = ops.matmul(inputs, self.matrix())
        else:
            result = ops.matmul(ops.matmul(inputs, factors[0]), factors[1])
        result = result if self.bias is None else ops.add(result, self.bias)
        return self.activation(result)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        units = self.structure["blocks"][0][0][2]
        return (*input_shape[:-1], units[1] - units[0])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "structure": self.structure,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "trainable_cores": self.trainable_cores,
        }


@keras.saving.register_keras_serializable("mpo_checkpoint")
class MPOEmbedding(keras.layers.Layer, _MadeOfCores):
    """``E[ids]``, as `keras.layers.Embedding`, with ``E [words, features]`` made of cores; see `MPODense`."""

    def __init__(
        self, structure: dict[str, Any], mask_zero: bool = False, trainable_cores: Trainable = "all", **options: Any
    ):
        super().__init__(**options)
        self.structure, self.mask_zero, self.trainable_cores = structure, mask_zero, trainable_cores
        self.supports_masking = mask_zero

    def build(self, input_shape: Any = None) -> None:
        self.add_cores(self.trainable_cores)
        self.built = True

    def call(self, inputs: Any) -> Any:
        factors = self.factors()
        ids = ops.cast(inputs, "int32")
        if factors is None:
            return ops.take(self.matrix(), ids, axis=0)
        return ops.matmul(ops.take(factors[0], ids, axis=0), factors[1])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: Any) -> tuple:
        features = self.structure["blocks"][0][0][2]
        return (*input_shape, features[1] - features[0])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "structure": self.structure, "mask_zero": self.mask_zero, "trainable_cores": self.trainable_cores
        }  # fmt: skip


def with_cores(model: keras.Model, path: Path | str, trainable: Trainable = "all") -> keras.Model:
    """A model with the weights of an MPO checkpoint, its dense layers and embeddings made of cores.

    Parameters
    ----------
    model
        a Sequential or functional model of the architecture that was converted. It is not changed, and its weights are not used.
    path
        the checkpoint that ``mpo convert`` made from the model's ``.keras`` or ``.weights.h5`` file.
    trainable
        which cores are trained: ``"all"``, ``"auxiliary"`` (central cores are frozen) or ``"none"``. Other weights are trained
        as in the model.

    Returns
    -------
    Model
        a new model.

    Raises
    ------
    CheckpointError
        if the folder is not a valid checkpoint, or one of another architecture.
    """
    checkpoint = MPOCheckpoint(path)
    places = _places(model)
    missing = [name for name in places.values() if name not in checkpoint.tensors]
    if missing:
        raise CheckpointError(
            path, f"has no tensor {missing[0]}, so it is of another architecture; give the model that was converted"
        )
    values: dict[str, list[tuple[Values, Values]]] = {}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        kinds: dict[type, Callable[..., keras.layers.Layer]] = {
            keras.layers.Dense: lambda s: MPODense(
                s, layer.activation, layer.use_bias, trainable, name=layer.name, dtype=layer.dtype_policy
            ),
            keras.layers.Embedding: lambda s: MPOEmbedding(
                s, layer.mask_zero, trainable, name=layer.name, dtype=layer.dtype_policy
            ),
        }
        if type(layer) not in kinds or not layer.weights:
            return layer.__class__.from_config(layer.get_config())
        record = checkpoint.holder(checkpoint.tensors[places[layer.weights[0].path]])
        if record.kind != "mpo" or record.shape != record.matrix_shape:
            return layer.__class__.from_config(layer.get_config())
        structure, values[layer.name] = _structure(checkpoint, record, trainable)
        return kinds[type(layer)](structure)

    copy = keras.models.clone_model(model, clone_function=clone)
    for old, new in zip(model.layers, copy.layers):
        if isinstance(new, (MPODense, MPOEmbedding)):
            for variable, value in zip(new.cores, [core for chain, _ in values[old.name] for core in chain]):
                variable.assign(value)
            for variable, value in zip(new.sides, [side for _, sides in values[old.name] for side in sides]):
                variable.assign(value)
            rest = list(zip(old.weights[1:], [] if new.__class__ is MPOEmbedding or new.bias is None else [new.bias]))
        else:
            rest = list(zip(old.weights, new.weights))
        for before, variable in rest:
            value = checkpoint.tensor(places[before.path])
            if value.shape != tuple(variable.shape):
                raise CheckpointError(
                    path, f"does not fit the model: {places[before.path]} is {list(value.shape)}, not {list(variable.shape)}"
                )
            variable.assign(value)
    return copy


def _structure(
    checkpoint: MPOCheckpoint, record: TensorRecord, trainable: Trainable
) -> tuple[dict[str, Any], list[tuple[Values, Values]]]:
    """The ``structure`` of a layer's weight, and for each operator the values of its cores and of its sides."""
    operators = [checkpoint.operators[name] for name in record.operators]
    blocks = [
        [[record.operators.index(term.operator), list(term.rows), list(term.columns)] for term in block]
        for block in record.blocks
    ]
    described, values = [], []
    for operator in operators:
        chain = checkpoint.chain(operator)
        if operator.gauge == "compact" and trainable == "auxiliary":
            chain = [core.astype(np.float32) for core in gauge.canonical(chain, operator.central)]
        sides = [_side(checkpoint, basis) for basis in (operator.row_basis, operator.column_basis)]
        described.append(_described(operator, sides))
        values.append((chain, [value for side in sides for value in side.values()]))
    return {"operators": described, "blocks": blocks}, values


def _described(operator: OperatorRecord, sides: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    return {
        "shapes": [list(shape) for shape in operator.core_shapes],
        "matrix_shape": list(operator.matrix_shape),
        "central": operator.central,
        "sides": [{role: list(value.shape) for role, value in side.items()} for side in sides],
    }


def _side(checkpoint: MPOCheckpoint, basis: Basis) -> dict[str, np.ndarray]:
    return {role: checkpoint.core(name) for role, name in basis.names.items()}


def _multiplied(cores: list[Any], shape: list[int]) -> Any:
    """The matrix of a chain, without padding."""
    result = cores[0]
    for core in cores[1:]:
        left, rows, columns, bond = result.shape
        _, i, j, right = core.shape
        product = ops.matmul(ops.reshape(result, (-1, bond)), ops.reshape(core, (bond, -1)))
        product = ops.transpose(ops.reshape(product, (left, rows, columns, i, j, right)), (0, 1, 3, 2, 4, 5))
        result = ops.reshape(product, (left, rows * i, columns * j, right))
    return result[0, : shape[0], : shape[1], 0]


def _places(model: keras.Model) -> dict[str, str]:
    """The name of each weight in a file that Keras writes, by the weight's path.

    Keras saves a copy of the model whose weights have their own numbers as values; the values in the file tell the names.
    """
    import h5py

    marked = keras.models.clone_model(model)
    for index, (variable, _) in enumerate(zip(marked.weights, model.weights)):
        variable.assign(np.full(tuple(variable.shape), index, np.float64).astype(variable.dtype))
    places: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "m.weights.h5")
        marked.save_weights(path)

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.size:
                index = int(np.asarray(item).reshape(-1)[0])
                places[model.weights[index].path] = name

        with h5py.File(path) as file:
            file.visititems(visit)
    return places
