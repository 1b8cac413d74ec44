import TensorNetworks

extension SqueezePlan {
  /// An operator whose ranges are several matrices.
  public struct Link: Sendable, Hashable, Codable {
    public let name: String
    /// The names of the layers, in the order in which they are stacked.
    public let members: [String]
    public let stacking: LinkProfile.Stacking
    /// Of the stacked matrix.
    public let split: MatrixSplit
    public let bonds: [Int]
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
