import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

/// The statistics file: second moments (or scales, or element-wise weights) of the layers of a network, as safetensors.
///
/// For a matrix `<name>` of `I × J`: `<name>.input_gram [J, J]` or `<name>.input_scale [J]`, of the columns;
/// `<name>.output_gram [I, I]` or `<name>.output_scale [I]`, of the rows; or `<name>.element_weights [I, J]` alone.
/// A scale multiplies the error, so its square stands for the second moment's diagonal.
public struct CalibrationStatistics: Sendable {
  public static let formatName = "mpo-statistics"
  private static let suffixes = ["input_gram", "input_scale", "output_gram", "output_scale", "element_weights"]

  private let file: any DenseCheckpoint
  /// Added to the diagonals, relative to their mean; nil for the defaults.
  public var inputRidge: Double?
  public var outputRidge: Double?

  /// - Throws: `CheckpointError` for what is no safetensors file, `ConversionError` for what is no statistics file.
  public init(path: String) throws {
    try self.init(openDenseCheckpoint(at: path))
  }

  /// - Throws: `ConversionError` for what is no statistics file.
  public init(_ file: any DenseCheckpoint) throws {
    self.file = file
    guard Self.isPresent(in: file) else {
      throw ConversionError.stageFile(
        path: file.path, reason: "is no statistics file (metadata 'format' is not '\(Self.formatName)')")
    }
    guard file.metadata["version"].map({ $0 == "1" || $0.hasPrefix("1.") }) ?? true else {
      throw ConversionError.stageFile(
        path: file.path, reason: "has another version; this mpo reads version 1: update it")
    }
  }

  public var path: String { file.path }
  public var files: [String] { file.files }
  public var description: String? { file.metadata["description"] }
  /// How many samples and tokens the statistics are of, as the file says.
  public var samples: Int? { file.metadata["samples"].flatMap { Int($0) } }
  public var tokens: Int? { file.metadata["tokens"].flatMap { Int($0) } }
  public var byteCount: Int { file.tensors.reduce(0) { $0 + $1.byteCount } }

  /// Names of the matrices it speaks of.
  public var matrices: Set<String> { Set(entries.map(\.matrix)) }

  /// One tensor of the file.
  public struct Entry: Sendable, Equatable {
    public let matrix: String
    /// `input_gram`, `input_scale`, `output_gram`, `output_scale` or `element_weights`.
    public let kind: String
    public let shape: [Int]
  }

  /// What it says, in the order of the file; tensors of other names are left out.
  public var entries: [Entry] {
    file.tensors.compactMap { tensor in
      Self.suffixes.first { tensor.name.hasSuffix("." + $0) }.map {
        Entry(matrix: String(tensor.name.dropLast($0.count + 1)), kind: $0, shape: tensor.shape)
      }
    }
  }

  /// Whether a dense checkpoint is a statistics file.
  public static func isPresent(in checkpoint: any DenseCheckpoint) -> Bool {
    checkpoint.metadata["format"] == formatName
  }

  /// A warning that counts the matrices of a network that the file does not speak of; nil when it speaks of all.
  /// - Throws: `ConversionError.stageFile` when it speaks of none: it is of another model.
  public func warning(for network: SourceNetwork) throws -> String? {
    let names = network.matrices.map(\.tensor.name)
    let known = matrices
    let missing = names.filter { !known.contains($0) }
    guard missing.count < names.count else {
      throw ConversionError.stageFile(
        path: path,
        reason: "has no statistics of any matrix of \(escaped(network.checkpoint.path)); is it of this model?")
    }
    guard let first = missing.first else { return nil }
    return "\(missing.count) of \(names.count) matrices have no statistics ('\(escaped(first))'"
      + "\(missing.count > 1 ? ", …" : "")); their errors are measured in the Frobenius norm"
  }

  /// What the manifest says of it.
  public var options: [String: String] {
    get throws {
      var options = ["calibration": description ?? path]
      options["calibration_sha256"] = try files.first.map { try FileFingerprint(ofFileAt: $0).sha256 }
      return options
    }
  }

  /// The metric of a matrix, without ridge; nil when the file does not speak of it.
  /// - Throws: `ConversionError.mismatch` for statistics of other sizes, with NaN, not symmetric, or negative.
  public func metric(of name: String, rows: Int, columns: Int) throws -> Metric? {
    if let weights = try values(name + ".element_weights", shape: [rows, columns]) {
      guard weights.allSatisfy({ $0 >= 0 }) else { throw invalid(name + ".element_weights", "has negative weights") }
      return Metric(
        elements: Matrix(rows: rows, columns: columns, elements: weights.map { Float($0) }))
    }
    let metric = Metric(
      rows: try side(name, "output", size: rows), columns: try side(name, "input", size: columns))
    return metric.isIdentity ? nil : metric
  }

  private func side(_ name: String, _ side: String, size: Int) throws -> Metric.Side {
    if let gram = try values("\(name).\(side)_gram", shape: [size, size]) {
      let matrix = Matrix(rows: size, columns: size, elements: gram)
      try check(matrix, "\(name).\(side)_gram")
      return .full(matrix)
    }
    guard let scale = try values("\(name).\(side)_scale", shape: [size]) else { return .identity }
    return .diagonal(scale.map { $0 * $0 })
  }

  /// Symmetric, and positive semi-definite up to rounding.
  private func check(_ matrix: Matrix<Double>, _ name: String) throws {
    let mean = Metric.Side.full(matrix).meanDiagonal
    for row in 0..<matrix.rows {
      for column in 0..<row where abs(matrix[row, column] - matrix[column, row]) > 1e-3 * max(abs(mean), 1e-300) {
        throw invalid(name, "is not symmetric (elements \(row), \(column))")
      }
    }
    let shifted = Metric(rows: .full(matrix)).regularized(rowRidge: 1e-4, columnRidge: 0).rows
    guard case .full(let regular) = shifted else {
      guard matrix.norm == 0 else { throw invalid(name, "is not positive semi-definite") }
      return
    }
    do {
      _ = try CholeskyFactor(of: regular)
    } catch {
      throw invalid(name, "is not positive semi-definite")
    }
  }

  private func values(_ name: String, shape: [Int]) throws -> [Double]? {
    guard let tensor = file.tensor(named: name) else { return nil }
    guard tensor.dtype.isDecomposable, tensor.shape == shape else {
      throw invalid(name, "is \(tensor.dtype.rawValue) \(tensor.shape), the matrix needs floating-point \(shape)")
    }
    let values = try file.withBytes(of: tensor) { bytes in
      try Double.withElements(bytes, of: tensor.dtype) { Array($0) }
    }
    guard values.allSatisfy(\.isFinite) else { throw invalid(name, "has NaN or infinite elements") }
    return values
  }

  private func invalid(_ name: String, _ reason: String) -> ConversionError {
    .mismatch(path: file.path, tensor: name, reason: reason + "; make the statistics again for this model")
  }
}

extension Metric {
  /// What the metric is used for: a chain of several sites has larger errors, which leave the region where the output
  /// moments are a good local model, and wants a larger ridge on them.
  enum Use { case lowRank, sites }

  /// With the ridges of the statistics, or the defaults: inputs 1e-4, outputs 1e-3 for two sites and 1 for more.
  func regularized(for use: Use, _ statistics: CalibrationStatistics?) -> Metric {
    regularized(
      rowRidge: statistics?.outputRidge ?? (use == .lowRank ? 1e-3 : 1), columnRidge: statistics?.inputRidge ?? 1e-4)
  }

  /// `⟨D, G D S⟩`.
  func squaredNorm(of difference: Matrix<Double>) -> Double {
    let weighted = applied(to: difference)
    return difference.elements.withUnsafeBufferPointer { a in
      weighted.elements.withUnsafeBufferPointer { Double.dot(a, $0) }
    }
  }
}
