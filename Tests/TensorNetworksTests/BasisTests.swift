import LinearAlgebra
import TestSupport
import Testing

@testable import TensorNetworks

@Suite struct BasisTests {
  private static let moment: Matrix<Double> = {
    let root = random(seed: 3)
    return root * root.transposed()
  }()

  private static func random(seed: UInt64) -> Matrix<Double> {
    var generator = SeededGenerator(seed: seed)
    return .random(rows: 6, columns: 6, using: &generator)
  }

  private static func rotation(_ kind: String) throws -> Basis.Rotation {
    switch kind {
    case "orthogonal": try Basis.Rotation(eigenvectorsOf: moment)
    case "permutation": Basis.Rotation(sorting: [3, 1, 4, 1, 5, 9])
    default: .identity
    }
  }

  static let kinds = ["identity", "permutation", "orthogonal"]

  @Test(arguments: kinds, kinds) func `a matrix comes back from its coordinates`(rows: String, columns: String) throws {
    let matrix = Self.random(seed: 1)
    let scale = [1, 2, 0.5, 4, 0.25, 3]
    let bases = (
      rows: Basis(rotation: try Self.rotation(rows), scale: scale),
      columns: Basis(rotation: try Self.rotation(columns), scale: columns == "identity" ? nil : scale)
    )
    let coordinates = matrix.withView { $0.coordinates(rows: bases.rows, columns: bases.columns) }
    #expect(
      difference(coordinates.applying(rows: bases.rows, columns: bases.columns), matrix) < 1e-12 * matrix.norm)
  }

  @Test(arguments: kinds, ["identity", "diagonal", "full"])
  func `the norm in a metric is that of the coordinates in theirs`(kind: String, side: String) throws {
    let matrix = Self.random(seed: 1)
    let basis = Basis(rotation: try Self.rotation(kind), scale: [1, 2, 0.5, 4, 0.25, 3])
    let weight: Metric.Side =
      switch side {
      case "diagonal": .diagonal([1, 0, 3, 0.5, 2, 7])
      case "full": .full(Self.moment)
      default: .identity
      }
    let metric = Metric(rows: weight, columns: .full(Self.moment))
    let coordinates = matrix.withView { $0.coordinates(rows: basis, columns: basis) }
    let (expected, found) = (
      metric.squaredNorm(of: matrix),
      metric.coordinates(rows: basis, columns: basis).squaredNorm(of: coordinates)
    )
    #expect(abs(found - expected) < 1e-10 * expected)
  }

  @Test func `in the eigenvectors of a second moment, scaled, its norm is the Frobenius norm, largest values first`()
    throws
  {
    let basis = Basis.normalizing(.full(Self.moment), in: try Self.rotation("orthogonal"))
    let side = basis.coordinates(of: .full(Self.moment))
    guard case .full(let weight) = side else { return #expect(Bool(false), "\(side)") }
    #expect(difference(weight, .identity(6)) < 1e-9)
    let scale = try #require(basis.scale)
    #expect(scale == scale.sorted())
  }

  @Test func `neurons are sorted by falling value, equal ones in their order`() throws {
    let basis = Basis(rotation: Basis.Rotation(sorting: [1, 3, 3, 0]), scale: nil)
    let matrix = Matrix<Double>(rows: 4, columns: 1, elements: [10, 11, 12, 13])
    #expect(basis.coordinates(of: matrix).elements == [11, 12, 10, 13])
    #expect(basis.diagonal(of: .diagonal([1, 3, 3, 0])) == [3, 3, 1, 0])
  }

  @Test func `a side without a basis leaves the coordinates unchanged`() throws {
    let zero = Basis.normalizing(.diagonal([0, 0]), in: .permutation([1, 0]))
    #expect(zero == Basis(rotation: .permutation([1, 0]), scale: nil))
    let half = Basis.normalizing(.diagonal([4, 0]), in: .identity)
    #expect(half.scale?.allSatisfy { $0.isFinite && $0 > 0 } == true)
  }

}
