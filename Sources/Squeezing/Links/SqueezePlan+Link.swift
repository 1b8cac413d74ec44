import TensorNetworks

extension SqueezePlan {
  /// An operator whose ranges are several matrices.
  public struct Link: Sendable, Hashable, Codable {
    /// The name of the operator.
    public let name: String
    /// The names of the layers, in the order in which they are stacked.
    public let members: [String]
    /// How the matrices are stacked.
    public let stacking: LinkProfile.Stacking
    /// Of the stacked matrix.
    public let split: MatrixSplit
    /// `[d_1 … d_{n-1}]` of the operator.
    public let bonds: [Int]
    /// What the operator is stored as.
    public let gauge: Gauge

    init(_ link: LinkedMatrices, form: OperatorForm) {
      name = link.profile.name
      members = link.profile.members
      stacking = link.profile.stacking
      split = MatrixSplit(rows: form.shape.rows, columns: form.shape.columns, shape: form.shape)
      (bonds, gauge) = (form.bonds, form.gauge)
    }
  }
}
