import TensorNetworks

/// What one column of a report says of one matrix.
struct MatrixFigures: Sendable {
  enum State: Sendable, Equatable {
    case cores
    case dense
    case tied(to: String)
  }

  /// A chain of cores that the matrix, or a part of it, is.
  struct Chain: Sendable {
    let name: String
    let shape: MPOShape
    let bonds: [Int]
    /// As `compact`.
    let gauge: String
    /// As `F32/I8`; empty where it is not known yet.
    let encodings: String
    /// Rows or columns of the chain that the matrix is, when it is not all of it.
    let range: String?
    let hasBases: Bool
  }

  let name: String
  let rows: Int
  let columns: Int
  /// Of the tensor, where it is no matrix by itself.
  var tensorShape: [Int]?
  let state: State
  /// The numbers that count for it: of cores that it shares its part.
  let stored: Double
  /// In the Frobenius norm.
  var relativeError: Double?
  /// In the metric of the conversion.
  var metricError: Double?
  var svdError: Double?
  var chains: [Chain] = []
  /// At the bonds of its only chain.
  var entropies: [Double]?
  var norm: Double?

  /// As `384×1536`.
  var sizeText: String { sizes(tensorShape ?? [rows, columns]) }
  /// `I · J`.
  var elements: Int { rows * columns }
  var ratio: Double { stored / Double(max(1, elements)) }

  /// The error that the conversion minimised; 0 for a matrix that stays as it is.
  var error: Double? {
    switch state {
    case .cores: metricError ?? relativeError
    case .dense, .tied: 0
    }
  }
}
