import LinearAlgebra
import Squeezing
import TensorNetworks
import TestSupport

extension LayerProfile {
  /// The profile of a given matrix.
  init(_ name: String, of matrix: Matrix<Double>, shape: MPOShape) throws {
    self.init(
      name: name, split: MatrixSplit(rows: matrix.rows, columns: matrix.columns, shape: shape), norm: matrix.norm,
      spectra: try matrix.withView { try SingularSpectra(of: $0, shape: shape) },
      singularValues: try matrix.elements.withUnsafeBufferPointer {
        try Matrix.singularValues(of: $0, rows: matrix.rows, columns: matrix.columns)
      })
  }

  /// The profile of a random matrix whose columns fall off, so that its spectra do too.
  static func random(
    _ name: String, _ shape: MPOShape, decay: Double = 0.9, scale: Double = 1, seed: UInt64
  ) throws -> LayerProfile {
    try LayerProfile(
      name, of: .random(rows: shape.rows, columns: shape.columns, decay: decay, scale: scale, seed: seed),
      shape: shape)
  }

  /// The same profile with some parts replaced.
  func with(
    rows: Int? = nil, columns: Int? = nil, norm: Double? = nil, spectra: [[Double]]? = nil,
    singularValues: [Double]? = nil
  ) -> LayerProfile {
    LayerProfile(
      name: name, split: MatrixSplit(rows: rows ?? self.rows, columns: columns ?? self.columns, shape: shape),
      norm: norm ?? self.norm, spectra: spectra.map { SingularSpectra($0) } ?? self.spectra,
      singularValues: singularValues ?? self.singularValues)
  }
}

extension Matrix<Double> {
  /// Column k is uniform in `±scale · decay^k`.
  static func random(rows: Int, columns: Int, decay: Double = 1, scale: Double = 1, seed: UInt64) -> Matrix {
    var generator = SeededGenerator(seed: seed)
    var elements: [Double] = []
    for _ in 0..<rows {
      var size = scale
      for _ in 0..<columns {
        elements.append(Double.random(in: -size...size, using: &generator))
        size *= decay
      }
    }
    return Matrix(rows: rows, columns: columns, elements: elements)
  }
}

extension NetworkProfile {
  /// Three matrices of different shapes and norms among `dense` other parameters.
  static func small(seed: UInt64, dense: Int = 100) throws -> NetworkProfile {
    let layers = [
      try LayerProfile.random(
        "first", MPOShape(rowFactors: [2, 3, 4], columnFactors: [2, 4, 2]), decay: 0.8, seed: seed),
      try LayerProfile.random(
        "second", MPOShape(rowFactors: [2, 2, 2, 2], columnFactors: [2, 3, 3, 2]), decay: 0.9, scale: 20,
        seed: seed + 1),
      try LayerProfile.random(
        "third", MPOShape(rowFactors: [12, 1], columnFactors: [1, 20]), decay: 0.7, scale: 0.05, seed: seed + 2),
    ]
    return NetworkProfile(
      parameters: layers.reduce(dense) { $0 + $1.denseParameterCount }, tiedParameters: 0, layers: layers)
  }
}
