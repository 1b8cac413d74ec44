import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Recipes
import TensorNetworks

/// Writes the best correction of low rank of a compressed model as a LoRA adapter of the PEFT library.
///
/// For each matrix `W` and what stands for it, `Ŵ`, the adapter is the `B A` of rank r that minimises
/// `‖G^½ (W − Ŵ − B A) S^½‖`, by a truncated singular value decomposition of the whitened difference. With the inputs' side
/// alone that is EoRA ([arXiv 2410.21271](https://arxiv.org/abs/2410.21271)) and QERA
/// ([arXiv 2410.06040](https://arxiv.org/abs/2410.06040)).
public struct Adapter: Sendable {
  /// Of each matrix; a matrix with a shorter side gets that rank.
  public var rank: Int
  /// Which matrices; those whose rows are inputs, as embeddings, have no place in such an adapter.
  public var selection: TensorSelection
  /// nil for the Frobenius norm.
  public var statistics: CalibrationStatistics?
  /// Threads, progress and warnings.
  public var options: ConversionOptions

  /// - Parameters:
  ///   - rank: of each correction, at least 1.
  ///   - selection: which matrices are corrected; by default all of linear layers.
  ///   - statistics: the metric of the corrections; nil for the Frobenius norm.
  ///   - options: the rest of how it is carried out.
  public init(
    rank: Int, selection: TensorSelection = TensorSelection(), statistics: CalibrationStatistics? = nil,
    options: ConversionOptions
  ) {
    self.rank = rank
    self.selection = selection
    self.statistics = statistics
    self.options = options
  }

  /// What was written.
  public struct Summary: Sendable, Equatable {
    /// Those that differ from the original's and got a correction.
    public var matrices = 0
    /// Of the corrections: `r (I + J)` of each matrix.
    public var parameters = 0
    /// `√(Σ‖W−Ŵ‖² / Σ‖W‖²)` in the metric of the statistics without ridges, over the matrices.
    public var errorBefore = 0.0
    /// The same with the adapter.
    public var errorAfter = 0.0
  }

  /// Computes and writes the adapter.
  ///
  /// - Parameters:
  ///   - compressed: what the adapter is for.
  ///   - original: the model that it stands for.
  ///   - folder: an empty folder.
  ///   - base: what the adapter's configuration names as the model that it is for.
  /// - Throws: `ConversionError` for models that do not belong together and statistics of another model, and the errors of
  ///   reading and writing.
  public func write(
    for compressed: CompressedModel, against original: any DenseCheckpoint, to folder: String, base: String
  ) throws -> Summary {
    let network = try SourceNetwork(original, selection: selection)
    if let warning = try statistics?.warning(for: network) { options.warning(warning) }
    let layers = try corrected(network, compressed)
    let matrices = layers.map(\.matrix)
    let weights = folder + "/adapter_model.safetensors"
    let writer = try SafetensorsWriter(
      path: weights, tensors: layers.flatMap { Self.tensors(of: $0, rank: rank) }, metadata: ["format": "pt"])
    let counter = ProgressCounter(
      .adapt, total: matrices.reduce(0) { $0 + $1.rows * $1.columns }, options.progress)
    let errors = ParallelResults<Errors>(count: matrices.count)
    BLASThreads.use(1)
    try forEachInParallel(Array(matrices.indices), jobs: options.jobs) { index in
      let layer = layers[index]
      let matrix = layer.matrix
      let (errorsOfIt, left, right) = try correction(of: matrix, compressed, original)
      errors[index] = errorsOfIt
      let factors = layer.isTransposed ? [left.transposed(), right.transposed()] : [right, left]
      for (tensor, factor) in zip(Self.tensors(of: layer, rank: rank), factors) {
        try factor.elements.withUnsafeBytes { try writer.write($0, to: tensor.name) }
      }
      counter.finished(matrix.name, elements: matrix.rows * matrix.columns)
    }
    try writer.finish()
    try Array(Self.configuration(of: layers, rank: rank, base: base).utf8).withUnsafeBytes {
      try writeFile($0, to: folder + "/adapter_config.json")
    }
    var report = Summary(matrices: matrices.count)
    report.parameters = matrices.reduce(0) { $0 + Self.rank($1, rank) * ($1.rows + $1.columns) }
    let all = matrices.indices.compactMap { errors[$0] }
    let total = all.reduce(0) { $0 + $1.norm }
    if total > 0 {
      report.errorBefore = (all.reduce(0) { $0 + $1.before } / total).squareRoot()
      report.errorAfter = (all.reduce(0) { $0 + $1.after } / total).squareRoot()
    }
    return report
  }

  /// Squares, in the metric.
  private struct Errors {
    let norm: Double
    let before: Double
    let after: Double
  }

  /// A linear layer with its matrix.
  private struct Layer {
    let matrix: WeightMatrix
    /// Whether the matrix is `[in, out]`.
    let isTransposed: Bool

    /// Its path in the model.
    var path: String { String(matrix.name.dropLast(suffix.count)) }
  }

  /// The linear layers whose matrices differ.
  private func corrected(_ network: SourceNetwork, _ compressed: CompressedModel) throws -> [Layer] {
    let known = statistics?.matrices ?? []
    let modelType = ModelConfiguration(of: network.checkpoint).modelType
    let suitable = network.matrices.compactMap { matrix -> Layer? in
      guard matrix.expert == nil, matrix.tensor.shape.count == 2, matrix.name.hasSuffix(suffix) else { return nil }
      let hasStatistics = known.contains(TensorName(matrix.name))
      return isTransposed(matrix, hasStatistics: hasStatistics, modelType: modelType).map {
        Layer(matrix: matrix, isTransposed: $0)
      }
    }
    let different = try suitable.filter { layer in
      try network.checkpoint.withBytes(of: layer.matrix.tensor) { bytes in
        try compressed.withBytes(of: layer.matrix.tensor) { found, dtype in
          dtype != layer.matrix.tensor.dtype || !found.elementsEqual(bytes)
        }
      }
    }
    guard different.isEmpty else { return different }
    throw ConversionError.stageFile(
      path: compressed.path,
      reason: suitable.isEmpty
        ? "has no matrix of a linear layer to correct; choose others with selection.include"
        : "equals \(escaped(network.checkpoint.path, limit: 4096)) in every matrix; there is nothing to correct")
  }

  /// Models of transformers whose layers are `Conv1D`, which keep their weight as `[in, out]`.
  private static let modelsOfConv1D: Set<String> = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"]

  /// Whether the matrix of a linear layer is `[in, out]`; nil for what is no linear layer.
  ///
  /// Statistics say which side is the inputs'. Without them the kind of model does, by the names of its layers. Embeddings,
  /// whose rows are inputs too, are known by their names.
  private func isTransposed(_ matrix: WeightMatrix, hasStatistics: Bool, modelType: String?) -> Bool? {
    let isEmbedding = ["*embed*", "*wte.weight", "*wpe.weight", "*shared.weight"].contains { matches($0, matrix.name) }
    let isConv1D =
      modelType.map(Self.modelsOfConv1D.contains) == true
      && ["*c_attn.weight", "*q_attn.weight", "*c_fc.weight", "*c_proj.weight"].contains { matches($0, matrix.name) }
    if hasStatistics, let statistics {
      let isOfColumns = statistics.inputs(of: matrix.name, orientation: matrix.tensor.orientation) == .columns
      return isOfColumns ? false : isConv1D ? true : nil
    }
    guard matrix.tensor.orientation == .outputInput, !isEmbedding else { return nil }
    return isConv1D
  }

  /// The errors of a matrix, and the factors `[I, r]` and `[r, J]` of its correction.
  private func correction(
    of matrix: WeightMatrix, _ compressed: CompressedModel, _ original: any DenseCheckpoint
  ) throws -> (Errors, left: Matrix<Float>, right: Matrix<Float>) {
    let (rows, columns) = (matrix.rows, matrix.columns)
    func values(_ bytes: UnsafeRawBufferPointer, _ dtype: DType) throws -> Matrix<Double> {
      try TensorElements.withDoubles(of: bytes, dtype) { Matrix(rows: rows, columns: columns, elements: Array($0)) }
    }
    let whole = try original.withBytes(of: matrix.tensor) { try values($0, matrix.tensor.dtype) }
    var difference = whole
    difference.subtract(try compressed.withBytes(of: matrix.tensor, values))
    guard difference.elements.allSatisfy(\.isFinite) else {
      throw ConversionError.mismatch(
        path: compressed.path, tensor: matrix.name,
        reason: "has NaN or infinite elements here or in the original; leave it out with --exclude")
    }
    let metric =
      try statistics?.preparedMetric(of: matrix.info, rows: rows, columns: columns) ?? PreparedMetric(.frobenius)
    // Weights of elements have no best correction that is known.
    let solved: PreparedMetric = if case .elements = metric { try PreparedMetric(.frobenius) } else { metric }
    let rank = Self.rank(matrix, rank)
    let chain: MPO<Double>? = try difference.withView { try solved.lowRank(of: $0, rank: rank) }
    guard let cores = chain?.cores, cores.count == 2 else {
      throw ConversionError.mismatch(
        path: compressed.path, tensor: matrix.name,
        reason: "has no correction that could be computed; leave it out with --exclude")
    }
    let up = Matrix(rows: rows, columns: rank, elements: cores[0].elements).converted(to: Float.self)
    let down = Matrix(rows: rank, columns: columns, elements: cores[1].elements).converted(to: Float.self)
    var rest = difference
    rest.subtract(up.converted(to: Double.self) * down.converted(to: Double.self))
    let errors = Errors(
      norm: metric.squaredNorm(of: whole), before: metric.squaredNorm(of: difference),
      after: metric.squaredNorm(of: rest))
    return (errors, up, down)
  }

  private static func rank(_ matrix: WeightMatrix, _ rank: Int) -> Int { min(rank, matrix.rows, matrix.columns) }

  /// `A` and `B`, by the names that PEFT gives them.
  private static func tensors(of layer: Layer, rank: Int) -> [TensorInfo] {
    let (prefix, rank) = ("base_model.model." + layer.path, Self.rank(layer.matrix, rank))
    let sides = [layer.matrix.columns, layer.matrix.rows]
    let (inputs, outputs) = layer.isTransposed ? (sides[1], sides[0]) : (sides[0], sides[1])
    return [
      TensorInfo(name: prefix + ".lora_A.weight", dtype: .f32, shape: [rank, inputs]),
      TensorInfo(name: prefix + ".lora_B.weight", dtype: .f32, shape: [outputs, rank]),
    ]
  }

  private static func configuration(of layers: [Layer], rank: Int, base: String) -> String {
    let ranks = layers.map { ($0.path, Self.rank($0.matrix, rank)) }
    // A layer's whole path, as a pattern that no longer path ends with.
    let others = ranks.filter { $0.1 != rank }.map { "\(jsonString("^" + $0.0)): \($0.1)" }.joined(separator: ", ")
    return """
      {
        "peft_type": "LORA",
        "base_model_name_or_path": \(jsonString(base)),
        "r": \(rank),
        "lora_alpha": \(rank),
        "rank_pattern": {\(others)},
        "alpha_pattern": {\(others)},
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": \(layers.contains(where: \.isTransposed)),
        "inference_mode": true,
        "target_modules": [
          \(ranks.map { jsonString($0.0) }.joined(separator: ",\n    "))
        ],
        "task_type": null
      }

      """
  }
}

/// What the names of matrices of layers end with.
private let suffix = ".weight"
