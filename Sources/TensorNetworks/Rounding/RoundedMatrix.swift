import LinearAlgebra

/// A matrix `[m, n]` of integers with scales.
public struct RoundedMatrix: Sendable, Equatable {
  /// The bits of a code, and how many of them have one scale.
  public let integers: IntegerGroups
  /// The number of rows, m.
  public let rows: Int
  /// The number of columns, n.
  public let columns: Int
  /// `[m, n]`, row-major.
  public let codes: [UInt8]
  /// `[m, ⌈n / group⌉]`, row-major; numbers that half precision has.
  public let scales: [Float]

  /// - Precondition: codes and scales are as many as the sizes ask for.
  public init(integers: IntegerGroups, rows: Int, columns: Int, codes: [UInt8], scales: [Float]) {
    precondition(codes.count == rows * columns && scales.count == rows * integers.scaleCount(columns: columns))
    (self.integers, self.rows, self.columns) = (integers, rows, columns)
    (self.codes, self.scales) = (codes, scales)
  }

  /// The numbers that the codes stand for, exactly: of at most 8 + 11 bits.
  public func matrix<Scalar: LinearAlgebraScalar>(as type: Scalar.Type = Scalar.self) -> Matrix<Scalar> {
    let groups = integers.scaleCount(columns: columns)
    // Single precision holds them, and a loop over concrete numbers is fast.
    return Matrix<Float>(rows: rows, columns: columns) { target in
      for row in 0..<rows {
        for group in 0..<groups {
          let scale = scales[row * groups + group]
          for column in (group * integers.group)..<min(columns, (group + 1) * integers.group) {
            let place = row * columns + column
            target.initializeElement(at: place, to: (Float(codes[place]) - integers.zero) * scale)
          }
        }
      }
    }.converted(to: Scalar.self)
  }
}
