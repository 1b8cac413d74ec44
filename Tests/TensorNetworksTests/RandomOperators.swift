import LinearAlgebra
import TestSupport

@testable import TensorNetworks

/// Shapes, bonds and cores of a seed.
struct RandomOperators {
  /// What the elements of cores are like.
  enum Content: CaseIterable {
    case uniform
    /// Weight that training moved from one core to another.
    case unevenlyScaled
    /// Some columns of the unfoldings are multiples of others, or zero.
    case rankDeficient
    case zero
    case constant
  }

  private var generator: SeededGenerator

  init(seed: Int) { generator = SeededGenerator(seed: UInt64(seed)) }

  mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &generator) }

  /// Two to five sites.
  mutating func shape() throws -> MPOShape {
    let sites = number(2...5)
    let factors = (0..<sites).map { _ in
      var pair = (1, 1)
      while pair == (1, 1) { pair = (number(1...(sites == 2 ? 16 : 4)), number(1...(sites == 2 ? 16 : 4))) }
      return pair
    }
    return try MPOShape(rowFactors: factors.map(\.0), columnFactors: factors.map(\.1))
  }

  mutating func bonds(_ shape: MPOShape) -> [Int] {
    shape.limitedBonds(shape.fullBonds.map { number(1...$0) })
  }

  mutating func matrix<Scalar>(rows: Int, columns: Int, _ type: Scalar.Type) -> Matrix<Scalar> {
    Matrix<Scalar>.random(rows: rows, columns: columns, using: &generator)
  }

  /// Cores of any bonds, each of its content.
  mutating func mpo<Scalar>(_ shape: MPOShape, bonds: [Int], _ content: Content, _ type: Scalar.Type) -> MPO<Scalar> {
    let cores = shape.coreShapes(bonds: bonds).map { sizes in
      let (rows, columns) = (sizes[0] * sizes[1] * sizes[2], sizes[3])
      var elements = matrix(rows: rows, columns: columns, type).elements
      switch content {
      case .uniform: break
      case .unevenlyScaled:
        let scale = [1e-4, 1e-2, 1, 10, 1e3][number(0...4)]
        elements = elements.map { $0 * Scalar(scale) }
      case .rankDeficient:
        let factors = (0..<columns).map { _ in Scalar(number(-1...1)) }
        for row in 0..<rows where columns > 1 {
          for column in 1..<columns where column % 3 > 0 {
            elements[row * columns + column] = factors[column] * elements[row * columns]
          }
        }
      case .zero: elements = elements.map { _ in 0 }
      case .constant: elements = elements.map { _ in 0.75 }
      }
      return MPOCore(shape: sizes, elements: elements)
    }
    return MPO(shape: shape, cores: cores)
  }
}

extension MPO {
  /// The padded matrix, multiplied out in double precision.
  var wholeMatrix: Matrix<Double> {
    converted(to: Double.self).matrix(rows: shape.rows, columns: shape.columns)
  }

  /// The auxiliary cores as matrices, their bond towards the centre in the columns, with their places.
  var inwardUnfoldings: [(index: Int, matrix: Matrix<Double>)] {
    cores.indices.filter { $0 != shape.centralIndex }.map { index in
      let core = cores[index].converted(to: Double.self)
      return (index, index < shape.centralIndex ? core.leftUnfolding : core.rightUnfolding.transposed())
    }
  }
}
