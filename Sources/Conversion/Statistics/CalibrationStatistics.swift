import Checkpoints
import Files
import LinearAlgebra
import MPOCheckpoints
import Synchronization
import TensorNetworks

/// The statistics file: second moments (or scales, or element-wise weights) of the layers of a network, as safetensors.
///
/// For a matrix `<name>` of `I × J` as it is stored: `<name>.row_gram [I, I]` or `<name>.row_scale [I]`, of the rows;
/// `<name>.column_gram [J, J]` or `<name>.column_scale [J]`, of the columns; or `<name>.element_weights [I, J]` alone.
/// A scale multiplies the error, so its square stands for the second moment's diagonal. The member `input_rows` of the
/// metadata, a JSON list, has the names of the matrices whose rows are the layer's inputs; of all others the columns are.
/// Where there is no such member, the orientation of the model's tensor says it. Files of version 1 have no such member
/// and call the columns `input`, the rows `output`.
///
/// A Gram matrix may be stored as its upper triangle, row by row: `[n (n + 1) / 2]`. A side that several matrices have in
/// common is stored once: the member `same`, a JSON object, says which tensor stands for `<name>.<side>_<kind>`. The members
/// `input_ridge` and `output_ridge` are the ridges that suit the statistics. `config_sha256` is the SHA-256 of the `config.json`
/// of the model folder that they are of.
public struct CalibrationStatistics: Sendable {
  /// What the metadata of such a file call the format.
  public static let formatName = "mpo-statistics"

  let file: any DenseCheckpoint
  /// Added to the diagonals of the inputs' and the outputs' sides, relative to their mean; nil for what the file says, or else
  /// the defaults.
  public var inputRidge: Double?
  /// Likewise, of the outputs' sides.
  public var outputRidge: Double?
  /// What was prepared and is needed again; nil to prepare every metric whenever it is asked for.
  var prepared: PreparedMetrics?
  private let inputRows: Set<TensorName>?
  /// The tensor that stands for one that is not stored.
  private let same: [TensorName: String]
  private let ownRidges: (input: Double?, output: Double?)
  private let fingerprint = CachedFingerprint()

  /// - Throws: `CheckpointError` for what is no safetensors file, `ConversionError` for what is not a statistics file.
  public init(path: String) throws {
    try self.init(openDenseCheckpoint(at: path))
  }

  /// - Throws: `ConversionError` for what is not a statistics file.
  public init(_ file: any DenseCheckpoint) throws {
    self.file = file
    func refused(_ reason: String) -> ConversionError { .stageFile(path: file.path, reason: reason) }
    guard Self.isPresent(in: file) else {
      throw refused("is not a statistics file (metadata 'format' is not '\(Self.formatName)')")
    }
    guard file.files.count == 1 else { throw refused("is several files; statistics are one file") }
    let version = file.metadata["version"] ?? "1"
    guard ["1", "2"].contains(version.prefix { $0 != "." }) else {
      throw refused("has version '\(escaped(version))'; this mpo reads the versions 1 and 2: update it")
    }
    do {
      inputRows = try file.metadata["input_rows"].map { Set(try Self.names($0).map { TensorName($0) }) }
    } catch {
      throw refused("its metadata 'input_rows' is not a JSON list of names; make the statistics again")
    }
    do {
      same = try file.metadata["same"].map(Self.renamings) ?? [:]
    } catch {
      throw refused("its metadata 'same' is not a JSON object of names; make the statistics again")
    }
    for (name, stored) in same.sorted(by: { $0.key < $1.key })
    where file.tensor(named: stored) == nil || file.tensor(named: name.text) != nil {
      throw refused(
        "its metadata 'same' maps '\(escaped(name.text))' to '\(escaped(stored))', which is not stored; make the statistics again"
      )
    }
    func ridge(_ name: String) throws -> Double? {
      guard let text = file.metadata[name] else { return nil }
      guard let value = Double(text), value >= 0, value.isFinite else {
        throw refused("its metadata '\(name)' is not a number of at least 0; make the statistics again")
      }
      return value
    }
    ownRidges = (try ridge("input_ridge"), try ridge("output_ridge"))
  }

  private static func renamings(_ json: String) throws -> [TensorName: String] {
    try Array(json.utf8).withUnsafeBytes { bytes in
      var names: [TensorName: String] = [:]
      try JSONReader.read(bytes) { reader in
        try reader.readObject { reader, name in names[TensorName(name)] = try reader.readString() }
      }
      return names
    }
  }

  private static func names(_ json: String) throws -> [String] {
    try Array(json.utf8).withUnsafeBytes { bytes in
      var names: [String] = []
      try JSONReader.read(bytes) { reader in try reader.readArray { reader, _ in names.append(try reader.readString()) }
      }
      return names
    }
  }

  /// The path of the file, as it was given.
  public var path: String { file.path }
  /// The file, in a list.
  public var files: [String] { file.files }
  /// What was run through which model, for people; nil where the file does not say.
  public var description: String? { file.metadata["description"] }
  /// How many samples and tokens the statistics are of, as the file says.
  public var samples: Int? { file.metadata["samples"].flatMap { Int($0) } }
  /// Likewise, tokens.
  public var tokens: Int? { file.metadata["tokens"].flatMap { Int($0) } }
  /// Bytes of all its tensors.
  public var byteCount: Int { file.tensors.reduce(0) { $0 + $1.byteCount } }

  /// Name, size and SHA-256 of the file. It is read once, whatever how often this is asked.
  /// - Throws: `FileError` where it can't be read.
  public var identity: FileFingerprint {
    get throws { try fingerprint.value(ofFileAt: file.files[0]) }
  }

  /// Names of the matrices it speaks of.
  public var matrices: Set<TensorName> { Set(entries.map { TensorName($0.matrix) }) }

  /// Whether a dense checkpoint is a statistics file.
  public static func isPresent(in checkpoint: any DenseCheckpoint) -> Bool {
    checkpoint.metadata["format"] == formatName
  }

  /// A warning that counts the matrices of a network that the file does not speak of; nil when it speaks of all.
  /// - Throws: `ConversionError.stageFile` when it is of another model: it speaks of none, or is of a `config.json` that is not
  ///   the one beside the checkpoint.
  public func warning(for network: SourceNetwork) throws -> String? {
    try requireConfiguration(besides: network.checkpoint)
    let names = network.matrices.map { TensorName($0.name) }
    let known = matrices
    let missing = names.filter { !known.contains($0) }
    guard missing.count < names.count else {
      throw ConversionError.stageFile(
        path: path,
        reason: "has no statistics of any matrix of \(escaped(network.checkpoint.path)); is it for this model?")
    }
    guard let first = missing.first else { return nil }
    return "\(missing.count) of \(names.count) matrices have no statistics ('\(escaped(first.text))'"
      + "\(missing.count > 1 ? ", …" : "")); their errors are measured in the Frobenius norm"
  }

  /// Nothing is compared where the file does not say its model's configuration, or the checkpoint has none beside it.
  private func requireConfiguration(besides checkpoint: any DenseCheckpoint) throws {
    guard let expected = file.metadata["config_sha256"], let weights = checkpoint.files.first else { return }
    let folder = weights.lastIndex(of: "/").map { String(weights[...$0]) } ?? ""
    let path = folder + "config.json"
    guard let found = try? FileFingerprint(ofFileAt: path), found.sha256 != expected.lowercased() else { return }
    throw ConversionError.stageFile(
      path: self.path,
      reason:
        "was made of a model with another config.json than \(escaped(path)); make the statistics again for this model")
  }

  /// Keeps what is prepared for one use until it is needed again, in an unnamed temporary file: factors of second moments
  /// that several matrices share, and, when there are several passes over the network, everything.
  /// - Parameters:
  ///   - passes: how often the metric of each matrix is used: 2 for a profile and a decomposition.
  ///   - folder: where the file takes its room: no more than that of the statistics in double precision.
  /// - Throws: `FileError` where the temporary file can't be made.
  public mutating func keepPreparedMetrics(passes: Int, in folder: String) throws {
    prepared = try PreparedMetrics(of: self, passes: passes, folder: folder)
  }
}

extension CalibrationStatistics {
  /// One side of a matrix as it is stored.
  public enum Axis: String, Sendable, CaseIterable {
    /// The rows of the matrix as it is stored.
    case rows
    /// Its columns.
    case columns

    /// The beginnings of the names of its tensors, of this version and of version 1.
    fileprivate var prefixes: [String] { self == .rows ? ["row", "output"] : ["column", "input"] }
  }

  /// One tensor of the file.
  public struct Statistic: Sendable, Equatable {
    /// What it says, with the shape of the tensor where it is stored whole.
    public enum Kind: Sendable, Equatable {
      /// `[n, n]`.
      case gram(Axis)
      /// `[n]`.
      case scale(Axis)
      /// `[I, J]`.
      case elementWeights
    }

    /// The tensor that is stored, which may be that of another matrix.
    public let tensor: String
    /// The name of the matrix that it is of.
    public let matrix: String
    /// What it says of the matrix.
    public let kind: Kind
    /// Of the side or the weights: `[n, n]` for a Gram matrix, however it is stored.
    public let shape: [Int]
  }

  private static let kinds: [(suffix: String, kind: Statistic.Kind)] =
    Axis.allCases.flatMap { axis in
      axis.prefixes.flatMap { [($0 + "_gram", Statistic.Kind.gram(axis)), ($0 + "_scale", .scale(axis))] }
    } + [("element_weights", .elementWeights)]

  /// What it says, in the order of the file, then the sides that are those of other matrices; tensors of other names are left
  /// out.
  public var entries: [Statistic] {
    let shared = same.sorted { $0.key < $1.key }.compactMap { name, stored in
      file.tensor(named: stored).map { (name.text, $0) }
    }
    return (file.tensors.map { ($0.name, $0) } + shared).compactMap { name, tensor in
      Self.kinds.first { name.hasSuffix("." + $0.suffix) }.map {
        Statistic(
          tensor: tensor.name, matrix: String(name.dropLast($0.suffix.utf8.count + 1)), kind: $0.kind,
          shape: Self.shape(of: tensor, $0.kind))
      }
    }
  }

  private static func shape(of tensor: TensorInfo, _ kind: Statistic.Kind) -> [Int] {
    guard case .gram = kind, tensor.shape.count == 1 else { return tensor.shape }
    let size = Int((Double(8 * tensor.shape[0] + 1).squareRoot() - 1) / 2)
    return size * (size + 1) / 2 == tensor.shape[0] ? [size, size] : tensor.shape
  }

  /// The side of a matrix that the layer's inputs are on, as far as the file says: what it does not say, the orientation
  /// of the tensor does.
  public func inputs(of matrix: String, orientation: TensorInfo.Orientation = .outputInput) -> Axis {
    (inputRows?.contains(TensorName(matrix)) ?? (orientation == .inputOutput)) ? .rows : .columns
  }

  /// The tensor that has one kind of statistic of a matrix.
  /// - Throws: `ConversionError.mismatch` when it is there under its old name too.
  private func tensor(_ name: String, _ axis: Axis, _ kind: String) throws -> TensorInfo? {
    let found = axis.prefixes.compactMap { prefix in
      let side = "\(name).\(prefix)_\(kind)"
      return file.tensor(named: same[TensorName(side)] ?? side)
    }
    guard found.count < 2 else {
      throw invalid(found[1].name, "says the same as '\(escaped(found[0].name))', which the file has too")
    }
    return found.first
  }

  /// The matrix and axis, as `<name>.rows`, whose second moment stands for that of a side; nil where there is none.
  func storedSide(_ axis: Axis, of matrix: String) -> String? {
    guard let stored = same[TensorName("\(matrix).\(axis.prefixes[0])_gram")] else { return nil }
    return Self.kinds.first { stored.hasSuffix("." + $0.suffix) }.flatMap { kind in
      guard case .gram(let axis) = kind.kind else { return nil }
      return "\(stored.dropLast(kind.suffix.utf8.count + 1)).\(axis.rawValue)"
    }
  }

  // MARK: - Metrics

  /// The metric of a matrix, without ridge; nil when the file does not speak of it.
  ///
  /// Whether second moments are positive semi-definite is not looked at before the metric is prepared.
  /// - Throws: `ConversionError.mismatch` for statistics of other sizes, with NaN, not symmetric, or negative.
  public func metric(of tensor: TensorInfo, rows: Int, columns: Int) throws -> Metric? {
    if let weights = try elementWeights(of: tensor.name, rows: rows, columns: columns) { return .elements(weights) }
    let metric = Metric(
      rows: try side(.rows, of: tensor.name, size: rows) ?? .identity,
      columns: try side(.columns, of: tensor.name, size: columns) ?? .identity)
    return metric == .frobenius ? nil : metric
  }

  /// The metric of a matrix with the ridges for a factorisation of two sites, factored; nil when the file does not speak of
  /// it.
  /// - Throws: `ConversionError.mismatch` for statistics of other sizes, with NaN, not symmetric, negative or not positive
  ///   semi-definite.
  public func preparedMetric(of tensor: TensorInfo, rows: Int, columns: Int) throws -> PreparedMetric? {
    if let weights = try elementWeights(of: tensor.name, rows: rows, columns: columns) { return .elements(weights) }
    let ridges = ridges(of: tensor, for: .lowRank)
    let roots = (
      rows: try root(.rows, of: tensor.name, size: rows, ridge: ridges.rows),
      columns: try root(.columns, of: tensor.name, size: columns, ridge: ridges.columns)
    )
    guard roots.rows != nil || roots.columns != nil else { return nil }
    return .sides(rows: roots.rows ?? .identity, columns: roots.columns ?? .identity)
  }

  /// What a metric is used for: a chain of several sites has larger errors, which leave the region where the output
  /// moments are a good local model, and wants a larger ridge on them; in bases its errors are smaller.
  enum Use { case lowRank, sites, sitesInBases }

  /// The ridges that were asked for, or those of the file, or the defaults: inputs 1e-4, outputs 1e-3 for two sites, 0.3 for
  /// more, 0.15 for more in bases.
  func ridges(of tensor: TensorInfo, for use: Use) -> (rows: Double, columns: Double) {
    let input = inputRidge ?? ownRidges.input ?? 1e-4
    let defaultOutput =
      switch use {
      case .lowRank: 1e-3
      case .sites: 0.3
      case .sitesInBases: 0.15
      }
    let output = outputRidge ?? ownRidges.output ?? defaultOutput
    return inputs(of: tensor.name, orientation: tensor.orientation) == .rows ? (input, output) : (output, input)
  }

  func elementWeights(of name: String, rows: Int, columns: Int) throws -> Matrix<Float>? {
    guard let tensor = file.tensor(named: name + ".element_weights") else { return nil }
    let weights = try values(tensor, shape: [rows, columns])
    guard weights.allSatisfy({ $0 >= 0 }) else { throw invalid(tensor.name, "has negative weights") }
    return Matrix(rows: rows, columns: columns, elements: weights.map { Float($0) })
  }

  private func side(_ axis: Axis, of name: String, size: Int) throws -> Metric.Side? {
    if let gram = try tensor(name, axis, "gram") { return .full(try secondMoment(gram, size: size)) }
    return try tensor(name, axis, "scale").map { .diagonal(try values($0, shape: [size]).map { $0 * $0 }) }
  }

  private func root(_ axis: Axis, of name: String, size: Int, ridge: Double) throws -> MetricRoot? {
    guard let gram = try tensor(name, axis, "gram") else {
      return try side(axis, of: name, size: size).map { try MetricRoot(of: $0, ridge: ridge) }
    }
    guard gram.shape == [size, size] || gram.shape == [size * (size + 1) / 2] else {
      throw invalidShape(gram, [size, size])
    }
    func prepare() throws -> MetricRoot {
      try factored(gram.name, ridge: ridge) { try secondMoment(gram, size: size) }
    }
    return try prepared?.root(of: gram.name, ridge: ridge, prepare) ?? prepare()
  }

  /// The part of the mean of the diagonal by which an eigenvalue may be negative: rounding of single precision.
  private static var tolerance: Double { 1e-4 }

  /// The root of a second moment; its existence is the check that the matrix is positive semi-definite where the ridge is
  /// not much more than the tolerance.
  /// - Parameter moment: decodes it.
  private func factored(_ name: String, ridge: Double, _ moment: () throws -> Matrix<Double>) throws -> MetricRoot {
    func isPositive() throws -> Bool {
      let matrix = try moment()
      return (try? MetricRoot(factoring: matrix, ridge: Self.tolerance)) != nil
    }
    do {
      let root = try MetricRoot(factoring: moment(), ridge: ridge)
      // It is zero where the trace is not positive.
      if case .identity = root.factor, try moment().norm > 0 { throw invalid(name, "is not positive semi-definite") }
      guard try ridge <= 100 * Self.tolerance || isPositive() else {
        throw invalid(name, "is not positive semi-definite")
      }
      return root
    } catch is LinearAlgebraError {
      guard try ridge < Self.tolerance && isPositive() else { throw invalid(name, "is not positive semi-definite") }
      throw ConversionError.mismatch(
        path: file.path, tensor: name,
        reason: "is singular, and the ridge \(ridge) is too small; choose a ridge of at least \(Self.tolerance)")
    }
  }

  private func secondMoment(_ tensor: TensorInfo, size: Int) throws -> Matrix<Double> {
    if tensor.shape == [size * (size + 1) / 2] {
      return try tensor.dtype == .f64
        ? withValues(tensor, shape: tensor.shape) { (values: UnsafeBufferPointer<Double>) in
          Matrix(symmetric: values, size: size)
        }
        : withValues(tensor, shape: tensor.shape) { (values: UnsafeBufferPointer<Float>) in
          Matrix(symmetric: values, size: size)
        }
    }
    let matrix = Matrix(rows: size, columns: size, elements: try values(tensor, shape: [size, size]))
    if let place = matrix.firstAsymmetry(above: 1e-3 * max(abs(Metric.Side.full(matrix).meanDiagonal), 1e-300)) {
      throw invalid(tensor.name, "is not symmetric (elements \(place.row), \(place.column))")
    }
    return matrix
  }

  private func values(_ tensor: TensorInfo, shape: [Int]) throws -> [Double] {
    try withValues(tensor, shape: shape) { Array($0) }
  }

  /// Calls `body` with the elements of a tensor of this shape, all of them finite.
  private func withValues<Scalar: CheckpointScalar, Result>(
    _ tensor: TensorInfo, shape: [Int], _ body: (UnsafeBufferPointer<Scalar>) throws -> Result
  ) throws -> Result {
    guard tensor.dtype.isDecomposable, tensor.shape == shape else { throw invalidShape(tensor, shape) }
    return try file.withBytes(of: tensor) { bytes in
      try Scalar.withElements(bytes, of: tensor.dtype) { values in
        // The sum is faster than looking at each element.
        guard Scalar.squaredNorm(values).isFinite || values.allSatisfy(\.isFinite) else {
          throw invalid(tensor.name, "has NaN or infinite elements")
        }
        return try body(values)
      }
    }
  }

  private func invalidShape(_ tensor: TensorInfo, _ shape: [Int]) -> ConversionError {
    invalid(tensor.name, "is \(tensor.dtype.rawValue) \(tensor.shape), the matrix needs floating-point \(shape)")
  }

  private func invalid(_ name: String, _ reason: String) -> ConversionError {
    .mismatch(path: file.path, tensor: name, reason: reason + "; make the statistics again for this model")
  }
}

extension Matrix<Double> {
  /// The first element below the diagonal that differs from its mirror image by more than `tolerance`, if any.
  fileprivate func firstAsymmetry(above tolerance: Double) -> (row: Int, column: Int)? {
    elements.withUnsafeBufferPointer { elements in
      // Square blocks, so that the columns stay in the cache.
      let side = 32
      for firstRow in stride(from: 0, to: rows, by: side) {
        for firstColumn in stride(from: 0, through: firstRow, by: side) {
          for row in firstRow..<min(firstRow + side, rows) {
            for column in firstColumn..<min(firstColumn + side, row)
            where !(abs(elements[row * columns + column] - elements[column * columns + row]) <= tolerance) {
              return (row, column)
            }
          }
        }
      }
      return nil
    }
  }
}

/// A fingerprint that is computed when it is first asked for.
private final class CachedFingerprint: Sendable {
  private let cached = Mutex<FileFingerprint?>(nil)

  func value(ofFileAt path: String) throws -> FileFingerprint {
    try cached.withLock { cached in
      if let cached { return cached }
      let value = try FileFingerprint(ofFileAt: path)
      cached = value
      return value
    }
  }
}
